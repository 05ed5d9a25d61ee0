"""Shared by the tests of the core."""

import gc
from collections.abc import Callable

import pytest

from gcpool._core import Entry


@pytest.fixture
def living() -> Callable[..., int]:
    """Count the objects of a type that the test created and that still exist; by default entries: of connections and
    tickets.

    Objects from before this test do not count. They are kept alive, so that a new object cannot be taken for an old
    one.
    """
    gc.collect()
    elders = {id(thing): thing for thing in gc.get_objects()}

    def count(kind: type = Entry) -> int:
        gc.collect()
        return sum(type(thing) is kind and id(thing) not in elders for thing in gc.get_objects())

    return count
