"""The events that a pool's ``on_event`` receives."""

from typing import Any, NamedTuple

__all__ = ['PoolEvent']


class PoolEvent(NamedTuple):
    """Something that happened to a pool, other than an acquire or a release that found a connection ready.

    Kinds: ``connected``, ``connect_failed``, ``closed``, ``timeout``, ``leak``, ``drained``, ``suspended``,
    ``resumed``, ``resized``, ``outage_began``, ``outage_ended``. Others may be added; ignore those that you do not
    know.

    :ivar kind: what happened
    :ivar pool: the name of the pool
    :ivar endpoint: the endpoint, as the manager's ``describe_endpoint`` shows it; None if the event is about the pool
    :ivar reason: of ``closed``: why, as in the statistics' ``closed_<reason>``; of ``timeout``: the phase of the
        acquire; otherwise a text or None
    :ivar duration: seconds that it took: to connect, to close, to wait; None if that does not apply
    :ivar error: of ``connect_failed`` and of a close that failed: the exception; of ``timeout``: the last connect
        error, if there is one
    """

    kind: str
    pool: str
    endpoint: Any = None
    reason: str | None = None
    duration: float | None = None
    error: BaseException | None = None
