"""Shared by the subjects for both runtimes: the description of a pool, and the count of its connections."""

from typing import ClassVar

__all__ = ['CountedPool']


class CountedPool:
    """One pool under test."""

    name: ClassVar[str]
    #: what is done with a connection when it is taken; when it is returned
    note: str
    #: whether it never has more connections than the case allows
    bounded: ClassVar[bool] = True

    def __init__(self) -> None:
        # Appending is atomic, also without a GIL.
        self._made: list[None] = []

    @property
    def created(self) -> int:
        """Connections made so far; a warm pool makes no more."""
        return len(self._made)

    def count_connection(self) -> None:
        self._made.append(None)
