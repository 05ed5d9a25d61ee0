"""Whether a package has made the program's threads greenlets, which share one thread of the system."""

import sys
from typing import Any

__all__ = ['threads_are_green']


def threads_are_green() -> bool:
    """Return whether gevent or eventlet has patched the modules of threads; that one was imported is not enough."""
    monkey: Any = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('threading'):
        return True
    patcher: Any = sys.modules.get('eventlet.patcher')
    return patcher is not None and bool(patcher.is_monkey_patched('thread'))
