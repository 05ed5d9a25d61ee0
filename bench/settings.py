"""How long and how often everything is measured."""

from dataclasses import dataclass

__all__ = ['FULL', 'QUICK', 'Settings']


@dataclass(frozen=True)
class Settings:
    #: rounds of the cases that measure a cycle
    rounds: int
    #: minimum number of nanoseconds of one of these measurements
    loop_ns: int
    #: the same two for the cases with many threads or tasks
    contention_rounds: int
    contention_ns: int
    #: how many endpoints "many" are
    endpoints: int
    #: rounds of the cases that build something of this size first
    bulk_rounds: int
    #: seconds of an outage, and for how long a pool at rest is watched
    outage: float
    rest: float
    #: how many stale connections psycopg_pool has: it pauses for 1, 2, 4, ... seconds between failed checks
    stale: int
    #: how many tasks queue for one connection
    queued: tuple[int, ...]
    queue_rounds: int
    #: rounds of the cases on real servers, and the minimum number of nanoseconds of one of these measurements
    server_rounds: int
    server_ns: int
    #: the same for cases that measure fairness
    server_long_ns: int


FULL = Settings(
    rounds=25,
    loop_ns=20_000_000,
    contention_rounds=5,
    contention_ns=400_000_000,
    endpoints=100_000,
    bulk_rounds=3,
    outage=30.0,
    rest=60.0,
    stale=5,
    queued=(2_500, 5_000, 10_000),
    queue_rounds=5,
    server_rounds=5,
    server_ns=400_000_000,
    server_long_ns=3_000_000_000,
)

#: To see that it runs, and for rough figures; not for publishing.
QUICK = Settings(
    rounds=11,
    loop_ns=10_000_000,
    contention_rounds=3,
    contention_ns=60_000_000,
    endpoints=5_000,
    bulk_rounds=2,
    outage=3.0,
    rest=5.0,
    stale=2,
    queued=(1_000, 2_000, 4_000),
    queue_rounds=3,
    server_rounds=3,
    server_ns=80_000_000,
    server_long_ns=250_000_000,
)
