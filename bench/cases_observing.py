"""The cost of observing a pool: recording who holds connections, and reading statistics."""

import _thread
from collections.abc import Callable
from typing import Any

from . import subjects_asyncio, subjects_threads
from .measure import Figure, Goal, Result, Timed, calibrate, interleave
from .runtimes import Runtime, check_reuse, opened, warm_up
from .settings import Settings

__all__ = ['record_holders']

_ON = 'gcpool, record_holders'
#: Nanoseconds that recording may take of an acquire at four frames.
_GOALS = {'threads': 60, 'asyncio': 120}


class ThreadsRecording(subjects_threads.GcPool):
    name = _ON

    def __init__(self, **options: Any) -> None:
        super().__init__(record_holders=True, **options)


class AsyncRecording(subjects_asyncio.GcPool):
    name = _ON

    def __init__(self, **options: Any) -> None:
        super().__init__(record_holders=True, **options)


def _at_four_frames(run: Timed) -> Timed:
    """Run in a thread where the subject's loop is the innermost of four frames, as the goal has it."""

    def timed(number: int) -> int:
        found: list[int] = []
        ended = _thread.allocate_lock()
        ended.acquire()

        def work(call: Callable[[], None]) -> None:
            try:
                call()
            finally:
                ended.release()

        _thread.start_new_thread(work, (lambda: found.append(run(number)),))
        ended.acquire()
        return found[0]

    return timed


def record_holders(runtime: Runtime, settings: Settings) -> Result:
    """A cycle with record_holders, against one without: the nanoseconds between."""
    result = Result(f'{runtime.name}: record_holders')
    recording: Any = ThreadsRecording() if runtime.name == 'threads' else AsyncRecording()
    with opened(runtime, [recording, runtime.subjects.GcPool()], result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            run = runtime.timed(subject.cycle)
            if runtime.name == 'threads':
                run = _at_four_frames(run)
            created[subject] = warm_up(subject, run)
            runs[subject.name] = run, calibrate(run, settings.loop_ns)
        samples = interleave(runs, 2 * settings.rounds)
        for subject in present:
            check_reuse(subject, created[subject])
        result.samples.update(samples)
        on, off = samples.values()
        more = [one - other for one, other in zip(on, off, strict=True)]
        goal = Goal('<=', _GOALS[runtime.name])
        result.figures.append(Figure('what recording adds to a cycle', more, unit=' ns', goal=goal))
    return result
