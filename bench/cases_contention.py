"""Many threads or tasks on few connections: the throughput, and how fair it is."""

from typing import Any

from .measure import Figure, Goal, Result, Timed, calibrate, interleave, jain_index, ratios
from .runtimes import Runtime, opened
from .settings import Settings

__all__ = ['contention', 'ideal_rate']

#: Seconds that a hold costs a thread beyond its length (falling asleep, waking up).
_HOLD_OVERHEAD = 60e-6

#: Without a hold a pool may be calibrated while its threads do not collide and measured while they queue, which is tens
#: of times slower.
_MOST_CYCLES = 2_000_000


def ideal_rate(connections: int, hold: float) -> float:
    """Return the cycles per second when all connections are always in use."""
    return connections / (hold + _HOLD_OVERHEAD)


def contention(runtime: Runtime, settings: Settings, workers: int, connections: int, hold: float) -> Result:
    """Measure one mixture.

    :param workers: threads or tasks
    :param hold: seconds between acquire and release
    """
    label = f'{hold * 1e6:.0f} us' if 0 < hold < 1e-3 else f'{hold * 1e3:.0f} ms' if hold else 'none'
    result = Result(f'{runtime.name}: contention, {workers} on {connections}, hold {label}')
    fairness: dict[str, list[float]] = {}
    with opened(runtime, [cls(connections) for cls in runtime.subjects.CONTENTION], result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        for subject in present:
            fairness[subject.name] = []
            run = _contender(runtime, subject, workers, hold, fairness[subject.name])
            # Enough for every worker to have several turns, so that fairness means something.
            quota = calibrate(run, settings.contention_ns, start=8 * workers)
            runs[subject.name] = run, min(quota, _MOST_CYCLES)
            fairness[subject.name].clear()
        result.samples = interleave(runs, settings.contention_rounds)
        for subject in present:
            if subject.created > connections:
                raise RuntimeError(f'{subject.name} made {subject.created} connections, its limit is {connections}')

    (first, own), *others = result.samples.items()
    # What a hold costs beyond its length is known for threads only.
    if hold and runtime.name == 'threads':
        ideal = ideal_rate(connections, hold)
        for name, samples in result.samples.items():
            goal = Goal('>=', 0.95) if hold == 1e-3 and name == 'gcpool' else None
            values = [1e9 / sample / ideal for sample in samples]
            result.figures.append(Figure(f'{name}: of the ideal rate', values, goal=goal))
    else:
        for other, samples in others:
            has_goal = first == 'gcpool' and other == 'generic_connection_pool' and runtime.name == 'threads'
            goal = Goal('>=', 8) if has_goal else None
            result.figures.append(Figure(f'{first}: throughput, in that of {other}', ratios(samples, own), goal=goal))
    for name, values in fairness.items():
        goal = Goal('>=', 0.99) if hold == 1e-3 and name == 'gcpool' and runtime.name == 'threads' else None
        result.figures.append(Figure(f'{name}: Jain fairness index', values, unit='', goal=goal))
    return result


def _contender(runtime: Runtime, subject: Any, workers: int, hold: float, fairness: list[float]) -> Timed:
    def run(quota: int) -> int:
        elapsed, served = runtime.contend(subject.serve, workers, quota, hold)
        if sum(served) != quota:
            raise RuntimeError(f'{subject.name} served {sum(served)} times instead of {quota}')
        fairness.append(jain_index(served))
        return elapsed

    return run
