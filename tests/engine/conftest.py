"""What the tests of the core share."""

import gc
from collections.abc import Callable

import pytest

from gcpool._core import Entry


@pytest.fixture
def living() -> Callable[..., int]:
    """How many objects of a type the test made that are still there; by default entries: connections' and tickets'.

    What tests before this one left does not count, whether it goes meanwhile or not: it is held on to, so that no new
    object is taken for it.
    """
    gc.collect()
    elders = {id(thing): thing for thing in gc.get_objects()}

    def count(kind: type = Entry) -> int:
        gc.collect()
        return sum(type(thing) is kind and id(thing) not in elders for thing in gc.get_objects())

    return count
