"""Whether a pool can serve acquires now, and why not: no I/O, and no connection is taken for it."""

from typing import Any

from ._core import Observer, PoolCore
from ._statistics import Health

__all__ = ['health_of']


def health_of(core: PoolCore, observer: Observer) -> Health:
    """Return what ``health()`` of a pool does."""
    out_of_service = _out_of_service(core)
    if out_of_service is not None:
        return Health('exhausted', out_of_service)
    size, idle, in_use, waiting, usable, troubled = core.readiness()
    if not idle and size >= core.total_max_size:
        return Health('exhausted', f'total_max_size={core.total_max_size} reached ({_counts(in_use, waiting)})')
    if not troubled:
        return Health('ok')
    # An outage explains more than a limit, which may be reached because of it.
    first, *others = sorted(troubled, key=lambda trouble: trouble[0] == 'max_size')
    reason = _describe(core, observer, *first)
    if others:
        reason += f', and {len(others)} other endpoint{"s"[: len(others) != 1]}'
    return Health('degraded' if usable else 'exhausted', reason)


def _out_of_service(core: PoolCore) -> str | None:
    if core.closed:
        return 'the pool is closed'
    if not core.opened:
        return 'the pool is not open yet'
    return 'the pool is suspended' if core.is_suspended else None


def _counts(in_use: int, waiting: int) -> str:
    return f'{in_use} in use, {waiting} waiting'


def _describe(
    core: PoolCore, observer: Observer, trouble: str, endpoint: Any, in_use: int, waiting: int, error: Any
) -> str:
    text = observer.text(endpoint)
    if trouble == 'max_size':
        return f'max_size={core.max_size} of {text} reached ({_counts(in_use, waiting)})'
    if trouble == 'full':
        return f'the server of {text} is full ({_counts(in_use, waiting)})'
    # Not the text of the error: a readiness answer is shown to strangers.
    kind = '' if error is None else f': {type(error).__name__}'
    return f'connects to {text} fail{kind} ({_counts(in_use, waiting)})'
