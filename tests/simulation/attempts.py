"""Which connects of an outage are attempts, as far as that can be told from outside of the pool.

In an outage one connect at a time begins. Besides, those may begin for which a slot was given before the outage. They
look the same, and may begin after the first attempt. So all that may be the case is kept: for each attempt that may be
under way, how many of the others are still to come. If nothing is left, a rule was broken.
"""

__all__ = ['Attempts']

# Stands for the attempt where none is under way.
NONE = object()


class Attempts:
    """The connects to one server since an outage began.

    :param promised: how many connects for which there was a slot before the outage have not begun
    """

    def __init__(self, promised: int):
        self.may_be: set[tuple[int, object]] = {(promised, NONE)}

    def begin(self, connect: object) -> bool:
        """A connect begins. False if it must not."""
        begun = {(promised - 1, attempt) for promised, attempt in self.may_be if promised > 0}
        begun.update((promised, connect) for promised, attempt in self.may_be if attempt is NONE)
        self.may_be = begun
        return bool(begun)

    def end(self, connect: object) -> None:
        """A connect has ended. It may have begun before the outage."""
        self.may_be = {(promised, NONE if attempt is connect else attempt) for promised, attempt in self.may_be}
