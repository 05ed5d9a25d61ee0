"""A pool with every feature on: what a cycle costs, and how often an unused pool wakes up."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

from . import subjects_asyncio, subjects_threads
from .measure import Figure, Goal, Result, Timed, calibrate, interleave, ratios
from .runtimes import Runtime, check_reuse, opened, warm_up
from .settings import Settings

__all__ = ['EVERYTHING', 'at_rest', 'everything_on']

MINIMUM = 2

#: Every feature that is off by default. Nothing is due for nine minutes: the first keepalive, jittered by 10 %.
EVERYTHING: dict[str, Any] = {
    'idle_timeout': 600.0,
    'acquire_timeout': 30.0,
    'background_collector': True,
    'dispose_timeout': 2.0,
    'name': 'everything',
    'on_event': lambda event: None,
    'max_waiting': 1000,
    'create_timeout': 10.0,
    'min_size': MINIMUM,
    'create_in_background': True,
    'reconnect_timeout': 60.0,
    'reconnect_failed': lambda pool, endpoint, error: None,
    'wait_when_full': True,
    'check_interval': 1.0,
    'check_timeout': 2.0,
    'keepalive_interval': 600.0,
    'lifetime_jitter': 0.1,
    'max_uses': 2_000_000_000,
}

#: Seconds after which idle threads of the pool have ended.
_SETTLED_AFTER = 11.0

_ON = 'gcpool, everything on'


class ThreadsEverything(subjects_threads.GcPool):
    name = _ON
    checks = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**EVERYTHING, **options)

    def open(self) -> None:
        super().open()
        self.pool.warm_up(self.endpoint)
        self.pool.wait()
        self.pool.drain(self.endpoint)  # so that each cycle is one of a pool that was drained
        self.pool.wait()


class AsyncEverything(subjects_asyncio.GcPool):
    name = _ON
    checks = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**EVERYTHING, **options)

    async def open(self) -> None:
        await super().open()
        self.pool.warm_up(self.endpoint)
        await self.pool.wait()
        await self.pool.drain(self.endpoint)
        await self.pool.wait()


def _everything(runtime: Runtime) -> Any:
    return ThreadsEverything() if runtime.name == 'threads' else AsyncEverything()


def everything_on(runtime: Runtime, settings: Settings) -> Result:
    """A cycle and a context manager with every feature on, against every feature off."""
    result = Result(f'{runtime.name}: everything_on')
    with opened(runtime, [_everything(runtime), runtime.subjects.GcPool()], result) as present:
        for kind in ('cycle', 'context_manager'):
            runs: dict[str, tuple[Timed, int]] = {}
            created = {}
            for subject in present:
                run = runtime.timed(getattr(subject, kind))
                created[subject] = warm_up(subject, run)
                runs[f'{subject.name}: {kind}'] = run, calibrate(run, settings.loop_ns)
            # Twice as many rounds as in other cases, because the difference is small.
            samples = interleave(runs, 2 * settings.rounds)
            for subject in present:
                check_reuse(subject, created[subject])
            result.samples.update(samples)
            on, off = samples.values()
            figure = Figure(
                f'everything on: cost of a {kind}, everything off = 1', ratios(on, off), goal=Goal('<=', 1.05)
            )
            result.figures.append(figure)
    return result


def at_rest(runtime: Runtime, settings: Settings) -> Result:
    """Use the pool, leave it alone, and count what wakes up."""
    result = Result(f'{runtime.name}: at_rest', unit='wake-ups')
    if runtime.name == 'threads' and not Path('/proc/self/task').exists():
        result.missing['gcpool'] = 'this system does not report how often a thread has slept'
        return result
    with opened(runtime, [_everything(runtime)], result) as present:
        for subject in present:
            runtime.call(subject.cycle, 100)
            if runtime.name == 'threads':
                wakeups = _wakeups_of_threads(settings.rest)
            else:
                wakeups = runtime.call(_wakeups_of_loop, settings.rest)
            result.samples[subject.name] = [wakeups]
            text = f'wake-ups in {settings.rest:.0f} s of a pool at rest, everything on'
            result.figures.append(Figure(text, [wakeups], unit='', goal=Goal('<=', 0)))
    return result


def _wakeups_of_threads(seconds: float) -> int:
    """Count how often the threads of pools have woken up, and how many have begun or ended."""
    time.sleep(_SETTLED_AFTER)
    before = _sleeps()
    time.sleep(seconds)
    after = _sleeps()
    return sum(count - before.get(thread, -1) for thread, count in after.items()) + len(before.keys() - after.keys())


def _sleeps() -> dict[int, int]:
    """How often each thread of a pool has waited for something: after each time except the last it woke up."""
    found = {}
    for thread in threading.enumerate():
        if thread.name.startswith('gcpool-'):
            status = Path(f'/proc/self/task/{thread.native_id}/status').read_text()
            found[thread.native_id or 0] = int(status.partition('\nvoluntary_ctxt_switches:')[2].split()[0])
    return found


async def _wakeups_of_loop(seconds: float) -> int:
    """Count how often the running loop goes to sleep while its only task sleeps once."""
    await asyncio.sleep(_SETTLED_AFTER)
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select = selector.select
    sleeps = 0

    def counted_select(timeout: float | None = None) -> Any:
        nonlocal sleeps
        sleeps += timeout != 0
        return select(timeout)

    selector.select = counted_select
    try:
        await asyncio.sleep(seconds)
    finally:
        del selector.select
    # Once for the task itself.
    return sleeps - 1
