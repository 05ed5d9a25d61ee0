"""Time limits and the deadlines that follow from them, in seconds."""

from ._core import ENDLESS

__all__ = ['get_deadline', 'seconds']


def seconds(value: float | None) -> str:
    """A time limit as a message shows it."""
    return 'no limit' if value is None else f'{value:g} s'


def get_deadline(now: float, timeout: float | None) -> float | None:
    """The time at which a time limit ends; None for never."""
    return None if timeout is None or timeout >= ENDLESS else now + timeout
