"""Whether a call that waits for connections to be returned would wait for its own caller.

Looked at only before such a call waits without a limit. Nothing is noted for it when a connection is acquired, but for
the thread that enters a context (``SyncConnectionContext``).
"""

import gc
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

from ._core import is_entered, is_entered_here
from ._green_threads import threads_are_green

__all__ = ['describe_own_use', 'running_hook', 'task_holds', 'thread_holds']

# The methods of a manager during which the pool counts a connection of theirs as in use.
HOOKS = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken')

COROUTINES = (AsyncGeneratorType, CoroutineType, GeneratorType)


def describe_own_use(pool: object, method: str, where: str) -> str:
    """The message of a ``PoolInUse``."""
    return (
        f'{method}() of {pool!r} was called inside {where}, whose connection it would wait for: '
        'expected it after that, or with a timeout'
    )


def running_hook(manager: object) -> str | None:
    """Return the name of the manager's method that the caller runs in, if any.

    Found by the Python frames of the thread or task: a method that is not written in Python is not seen.
    """
    codes: dict[int, str] = {}
    for name in HOOKS:
        method = getattr(manager, name, None)
        code = getattr(getattr(method, '__func__', method), '__code__', None)
        if code is not None:
            codes[id(code)] = name
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect takes long to import
    while frame is not None:
        name = codes.get(id(frame.f_code), '')
        if name and _is_called_on(frame, manager):
            return name
        frame = frame.f_back
    return None


def _is_called_on(frame: FrameType, manager: object) -> bool:
    # Two managers of one class share the code of their methods.
    code = frame.f_code
    if code.co_argcount == 0:
        return True
    first = frame.f_locals.get(code.co_varnames[0], manager)
    return first is manager or not isinstance(first, type(manager))


def thread_holds(pool: object) -> bool:
    """Whether the calling thread is inside a block of ``pool.connection()``."""
    if threads_are_green() or _is_greenlet():
        # A context does not tell apart those that share a thread of the system.
        return False
    return any(is_entered_here(thing, pool) for thing in gc.get_objects())


def _is_greenlet() -> bool:
    # Whether the caller runs in a greenlet of some other package's. Only the main one of a thread has no parent.
    greenlet = sys.modules.get('greenlet')
    return greenlet is not None and greenlet.getcurrent().parent is not None


def task_holds(coroutine: object, pool: object) -> bool:
    """Whether a task is inside a block of ``pool.connection()``. The task must be waiting for something.

    :param coroutine: that of the task
    """
    return any(is_entered(getattr(thing, '__self__', thing), pool) for thing in _referents(coroutine))


def _referents(coroutine: Any) -> Iterator[object]:
    # What the frames of a task refer to, their stacks included: a block that is entered has its context there.
    while coroutine is not None:
        things = gc.get_referents(coroutine)
        for thing in things:
            yield thing
            if isinstance(thing, FrameType):
                yield from gc.get_referents(thing)
        coroutine = _awaited_by(coroutine, things)


def _awaited_by(coroutine: object, things: list[object]) -> object:
    for name in ('cr_await', 'gi_yieldfrom', 'ag_await'):
        inner = getattr(coroutine, name, None)
        if inner is not None:
            return inner
    if isinstance(coroutine, COROUTINES):
        return None
    # An iterator around a coroutine, as the step of an asynchronous generator.
    return next((thing for thing in things if isinstance(thing, COROUTINES)), None)
