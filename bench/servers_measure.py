"""What is measured on a server: throughput, waits for a connection, and how often each worker is served."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .measure import Figure, Goal, Result, ratios

__all__ = [
    'ALL_SERVED',
    'CHECKOUT',
    'LEAST_OF_MOST',
    'MEASURES',
    'OPENED',
    'PROCESSOR',
    'SHORTEST_OF_LONGEST',
    'SPIKE_MEASURES',
    'THROUGHPUT',
    'WAIT_99',
    'WAIT_LONGEST',
    'WAIT_MEDIAN',
    'Load',
    'LoadResult',
    'Measure',
    'compare',
    'percentile',
]


@dataclass(frozen=True)
class Load:
    """One round of one subject."""

    #: nanoseconds from the start until the last worker was done
    elapsed: int
    #: how often each worker was served
    served: Sequence[int]
    #: nanoseconds that each acquire took, one list per worker
    waits: Sequence[Sequence[int]]
    #: connections that were opened meanwhile
    opened: int = 0
    #: nanoseconds of the processor that this process took, all threads together
    processor: int = 0

    @property
    def all_waits(self) -> list[int]:
        """Nanoseconds, of all workers."""
        return [wait for waits in self.waits for wait in waits]

    @property
    def throughput(self) -> float:
        """Requests per second."""
        return sum(self.served) * 1e9 / self.elapsed

    @property
    def wait_median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.all_waits) / 1e6

    @property
    def wait_99(self) -> float:
        """Milliseconds that 99 of 100 waits do not exceed."""
        return percentile(self.all_waits, 99) / 1e6

    @property
    def wait_longest(self) -> float:
        """Milliseconds. Where some workers are not served at all until the others are done, only this shows it."""
        return max(self.all_waits) / 1e6

    @property
    def least_of_most(self) -> float:
        """How often the least served worker was served, relative to the most served one."""
        return min(self.served) / max(self.served)

    @property
    def shortest_of_longest(self) -> float:
        """The shortest mean wait of a worker, relative to the longest.

        This is the pool's share in how often each worker is served. The rest depends on the server and the machine,
        which may keep a worker for long in the middle of its query.
        """
        means = [statistics.fmean(waits) for waits in self.waits if waits]
        return min(means) / max(means)


@dataclass(frozen=True)
class Measure:
    """A number that every round of every subject has."""

    text: str
    unit: str
    of: Callable[[Load], float]


THROUGHPUT = Measure('throughput', ' /s', lambda load: load.throughput)
WAIT_MEDIAN = Measure('median wait', ' ms', lambda load: load.wait_median)
WAIT_99 = Measure('p99 wait', ' ms', lambda load: load.wait_99)
WAIT_LONGEST = Measure('longest wait', ' ms', lambda load: load.wait_longest)
LEAST_OF_MOST = Measure('least/most served', '', lambda load: load.least_of_most)
SHORTEST_OF_LONGEST = Measure('shortest/longest mean wait', '', lambda load: load.shortest_of_longest)
PROCESSOR = Measure('processor time of a query', ' us', lambda load: load.processor / sum(load.served) / 1e3)
OPENED = Measure('connections opened', '', lambda load: load.opened)
ALL_SERVED = Measure('all served after', ' ms', lambda load: load.elapsed / 1e6)
CHECKOUT = Measure('a checkout', ' us', lambda load: load.elapsed / sum(load.served) / 1e3)

MEASURES = [THROUGHPUT, WAIT_MEDIAN, WAIT_99, WAIT_LONGEST, LEAST_OF_MOST]
SPIKE_MEASURES = [OPENED, ALL_SERVED, WAIT_MEDIAN, WAIT_99]


@dataclass
class LoadResult(Result):
    """What one case has measured."""

    unit: str = 'ns/query'
    measures: Sequence[Measure] = ()
    #: name of the subject -> its rounds
    loads: dict[str, list[Load]] = field(default_factory=dict)
    #: name of the subject -> what it does when a connection is taken and returned
    notes: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, note: str = '') -> list[Load]:
        """Enter a subject and return the list for its rounds."""
        if note:
            self.notes[name] = note
        self.loads[name] = []
        return self.loads[name]

    def values(self, subject: str, measure: Measure) -> list[float]:
        """One value per round."""
        return [measure.of(load) for load in self.loads[subject]]

    def with_absolute(self) -> Result:
        """Return the result with the measures of each subject, as they are, before the comparisons."""
        own = [
            Figure(f'{name}: {measure.text}', self.values(name, measure), unit=measure.unit)
            for name in self.loads
            for measure in self.measures
        ]
        return dataclasses.replace(self, figures=own + self.figures)


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest of the values that ``percent`` per cent of them do not exceed (the nearest rank)."""
    if not values:
        raise ValueError('there is no percentile of nothing')
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


def compare(result: LoadResult, measure: Measure, other: str, goal: Goal | None = None, own: str = 'gcpool') -> None:
    """Add a figure of a subject of gcpool relative to another one, round by round; nothing if one is missing."""
    if own not in result.loads or other not in result.loads:
        return
    values = ratios(result.values(own, measure), result.values(other, measure))
    result.figures.append(Figure(f'{own}: {measure.text}, in that of {other}', values, goal=goal))
