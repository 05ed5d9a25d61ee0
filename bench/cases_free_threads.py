"""Without the GIL: the throughput of two threads that share a pool, against one thread."""

import sys
import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns

from .measure import Figure, Goal, Result, Timed, calibrate, interleave, ratios
from .noop import ENDPOINT
from .runtimes import Runtime, opened
from .settings import Settings

__all__ = ['two_threads']

_OTHER_ENDPOINT = 'other.example:5432'
_GOALS = {'two endpoints': Goal('>=', 1.5), 'one endpoint': Goal('>=', 1.0)}
_HUNG_AFTER = 120.0


def two_threads(runtime: Runtime, settings: Settings) -> Result:
    """One thread that cycles at an endpoint; two at one endpoint each; two at the same."""
    result = Result(f'{runtime.name}: two_threads')
    if getattr(sys, '_is_gil_enabled', lambda: True)():
        result.missing['gcpool'] = 'this Python has a GIL, so that one thread runs at a time'
        return result
    with opened(runtime, [runtime.subjects.GcPool()], result) as present:
        for subject in present:
            runs = {
                'one thread': _together(subject.visit, [ENDPOINT]),
                'two endpoints': _together(subject.visit, [ENDPOINT, _OTHER_ENDPOINT]),
                'one endpoint': _together(subject.visit, [ENDPOINT, ENDPOINT]),
            }
            number = calibrate(runs['one thread'], settings.loop_ns)
            result.samples = interleave({name: (run, number) for name, run in runs.items()}, settings.rounds)
    alone = result.samples['one thread']
    for name, goal in _GOALS.items():
        # Twice the work was done in this time.
        rate = [2 * ratio for ratio in ratios(alone, result.samples[name])]
        result.figures.append(Figure(f'gcpool: rate of two threads on {name}, one thread = 1', rate, goal=goal))
    return result


def _together(visit: Callable[[Sequence[str]], object], endpoints: Sequence[str]) -> Timed:
    """A thread for each of the endpoints, all at once."""

    def run(number: int) -> int:
        started: list[int] = []
        ended = [0] * len(endpoints)
        gate = threading.Barrier(len(endpoints), action=lambda: started.append(perf_counter_ns()))

        def work(index: int) -> None:
            visits = [endpoints[index]] * number
            gate.wait(_HUNG_AFTER)
            visit(visits)
            ended[index] = perf_counter_ns()

        threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(endpoints))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_HUNG_AFTER)
        if not all(ended):
            raise RuntimeError(f'{ended.count(0)} of {len(ended)} threads hang or have failed')
        return max(ended) - started[0]

    return run
