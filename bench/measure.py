"""How everything here is measured: interleaved rounds, loops of a calibrated length, medians of paired ratios.

The machines are busy with other things, so a time alone says little. The subjects are therefore measured in turns,
round after round, and a ratio is taken within each round, in which both sides saw the same machine; the figure is the
median of these ratios, with its quartiles.
"""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ['Figure', 'Goal', 'Result', 'Timed', 'calibrate', 'interleave', 'jain_index', 'quartiles', 'ratios']

#: Does something ``n`` times and returns how many nanoseconds that took.
Timed = Callable[[int], int]


@dataclass(frozen=True)
class Goal:
    """A goal for a figure. It is printed, never asserted."""

    relation: str
    bound: float

    def is_met(self, value: float) -> bool:
        return value >= self.bound if self.relation == '>=' else value <= self.bound


@dataclass(frozen=True)
class Figure:
    """One line of the table: a number that can be compared between machines, one value per round."""

    text: str
    values: Sequence[float]
    unit: str = 'x'
    goal: Goal | None = None


@dataclass
class Result:
    """What one case has measured."""

    case: str
    #: name of the subject -> its figure of each round, in ``unit``
    samples: dict[str, list[float]] = field(default_factory=dict)
    unit: str = 'ns/cycle'
    figures: list[Figure] = field(default_factory=list)
    #: name of the subject -> why it could not take part
    missing: dict[str, str] = field(default_factory=dict)


def calibrate(run: Timed, at_least: int, start: int = 64) -> int:
    """Find how often ``run`` must repeat to take ``at_least`` nanoseconds; this also warms it up."""
    number = start
    while (elapsed := run(number)) < at_least // 2:
        # At most ten times as many at once: the first runs are not typical.
        number = int(number * min(10.0, max(2.0, at_least / max(elapsed, 1))))
    return max(start, round(number * at_least / elapsed))


def interleave(runs: Mapping[str, tuple[Timed, int]], rounds: int) -> dict[str, list[float]]:
    """Run everything in turns.

    :param runs: name -> what to run and its number of repetitions
    :param rounds: how many turns each gets; the order changes with every round
    :return: name -> nanoseconds of one repetition, one value per round
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    # The first subject must not collect the garbage of the setup. The collector itself stays on, as for users.
    gc.collect()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run, number = runs[name]
            samples[name].append(run(number) / number)
    return samples


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Divide round by round."""
    return [above / below for above, below in zip(numerator, denominator, strict=True)]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method='inclusive')
    return lower, median, upper


def jain_index(counts: Sequence[int]) -> float:
    """Jain's fairness index: 1 when all got the same, 1/n when one got everything."""
    return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))
