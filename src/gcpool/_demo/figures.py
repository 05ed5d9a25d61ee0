"""The results of the demo's clients, and the figures that are reported."""

import array
import dataclasses
from collections.abc import Iterable, Mapping, Sequence


@dataclasses.dataclass
class Tally:
    """The results of one client with one pool. Written by that client alone, so it needs no lock."""

    asked: int = 0
    answered: int = 0
    refused: int = 0  # acquires that failed, because the connection could not be made
    broken: int = 0  # requests whose connection failed half-way
    timed_out: int = 0
    wrong: int = 0  # answers other than expected
    waits: 'array.array[float]' = dataclasses.field(default_factory=lambda: array.array('d'))  # acquire, seconds

    @property
    def errors(self) -> int:
        return self.refused + self.broken + self.timed_out + self.wrong


@dataclasses.dataclass(frozen=True)
class Figures:
    """One column of the report: one pool in one phase."""

    title: str
    connections: int
    seconds: float
    tally: Tally
    fairness: float
    stats: Mapping[str, int]
    left_out: int  # connections that were still in use when the pool was closed

    @property
    def rate(self) -> float:
        return self.tally.answered / self.seconds

    def wait_percentile(self, percent: float) -> float:
        """Return the acquire latency, in seconds, that ``percent`` of the acquires did not exceed."""
        waits = sorted(self.tally.waits)
        return waits[min(len(waits) - 1, int(len(waits) * percent / 100))] if waits else float('nan')


@dataclasses.dataclass(frozen=True)
class Glance:
    """The figures of a running phase for the progress line."""

    answered: int
    errors: int
    out: int
    waiting: int
    idle: int = 0


@dataclasses.dataclass
class Course:
    """The samples of a phase.

    :ivar looks: for each sample, seconds since the phase began, and the figures
    :ivar killed_at: when the server was killed, in seconds since the phase began; NaN if it was not
    :ivar back_at: when it was restarted
    """

    title: str
    looks: list[tuple[float, Glance]] = dataclasses.field(default_factory=list)
    killed_at: float = float('nan')
    back_at: float = float('nan')


def jain(shares: Sequence[int]) -> float:
    """Return Jain's fairness index: 1 if all shares are equal, 1/n if one of n has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else float('nan')


def total_of(tallies: Iterable[Tally]) -> Tally:
    """Add up the results of several clients."""
    total = Tally()
    for tally in tallies:
        total.asked += tally.asked
        total.answered += tally.answered
        total.refused += tally.refused
        total.broken += tally.broken
        total.timed_out += tally.timed_out
        total.wrong += tally.wrong
        total.waits.extend(tally.waits)
    return total
