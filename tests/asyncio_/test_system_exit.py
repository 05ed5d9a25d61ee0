"""SystemExit of a callback, a hook or a log handler in a task of the pool: it is logged, and the work goes on.

asyncio lets it out of a task, and so out of the run of the loop, unless the pool keeps it.
"""

import asyncio
import functools
import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from gcpool._signal_handlers import is_of_signal_handler
from gcpool.common import PoolEvent
from tests.asyncio_.runtime import until
from tests.pool.support import Case, CheckingManager, HookedManager, Manager

needs_signals = pytest.mark.skipif(sys.platform == 'win32', reason='signals interrupt nothing there')


# -- callbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('awaits', [False, True])
async def test_on_event_is_called_for_all_later_events(awaits: bool, caplog: pytest.LogCaptureFixture) -> None:
    told = []

    def on_event(event: PoolEvent) -> None:
        told.append(event.endpoint)
        raise SystemExit(3)

    async def on_event_later(event: PoolEvent) -> None:
        await asyncio.sleep(0)
        on_event(event)

    async with Case(on_event=on_event_later if awaits else on_event) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        await until(lambda: told == ['a', 'b', 'c'])
    assert caplog.text.count('on_event failed') == 6
    assert 'SystemExit: 3' in caplog.text


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_a_close_of_the_pool_ends_and_the_next_one_begins(caplog: pytest.LogCaptureFixture) -> None:
    async with Case(max_workers=1, name='orders') as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        case.manager.script('dispose', SystemExit(1), SystemExit(2))
        await case.pool.drain()
        await until(lambda: case.pool.get_size() == 0)
        assert case.pool._core.jobs_at_work == 0
        assert case.manager.living == []
        assert await case.cycle('d') == 'd1'
    assert 'the task gcpool-orders-dispose was ended by a SystemExit' in caplog.text


async def test_close_closes_all_connections(caplog: pytest.LogCaptureFixture) -> None:
    async with Case() as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        case.manager.script('dispose', SystemExit(1))
        assert await case.pool.close() == 0
        assert case.manager.living == []
    assert 'was ended by a SystemExit' in caplog.text


async def test_a_create_that_nobody_waits_for_leaves_its_worker_to_the_next_one() -> None:
    async with Case(max_workers=1) as case:
        case.manager.script('create', SystemExit(1))
        case.pool.warm_up('a', 1)
        case.pool.warm_up('b', 1)
        await until(lambda: case.stats['idle'] == 1)
        assert case.stats['create_errors'] == 1

        def has_two() -> bool:
            case.clock.advance(0.1)
            return case.stats['idle'] == 2

        await until(has_two)
        assert case.pool._core.jobs_at_work == 0


def test_a_create_fails_its_acquire_alone() -> None:
    """The task of the acquire is the program's, whose loop asyncio ends then."""
    cases = []

    async def main() -> None:
        case = Case(create_in_background=True, max_workers=1)
        cases.append(case)
        case.manager.script('create', SystemExit(7))
        await case.pool.acquire('a')

    with pytest.raises(SystemExit) as caught:
        asyncio.run(main())
    assert caught.value.code == 7
    [case] = cases
    assert case.pool.get_size() == 0
    assert case.pool._core.jobs_at_work == 0
    case.pool.terminate()


async def test_a_check_in_the_background_leaves_the_connection_and_the_others_are_checked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Case(
        CheckingManager(), keepalive_interval=1.0, lifetime_jitter=0.0, max_workers=1, _random=lambda: 0.0
    ) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        case.manager.take_calls()
        case.manager.script('check_aliveness', SystemExit(1))
        case.clock.advance(1.0)
        await until(lambda: len(case.manager.calls) == 3 and case.stats['checking'] == 0)
        assert case.stats['idle'] == 3
        case.manager.script('check_aliveness', SystemExit(2))
        assert await case.pool.check() == 0
        assert len(case.manager.calls) == 6
    assert caplog.text.count('a check of a connection to') == 2


async def test_on_release_of_a_release_that_nobody_awaits() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', SystemExit(1))
        case.pool.release_nowait(conn)
        await until(lambda: case.stats['in_use'] == 0)
        await until(lambda: not case.pool._tasks)


async def test_on_connection_dead_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    class Dead(CheckingManager):
        async def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
            raise SystemExit('dead')

    async with Case(Dead()) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', False)
        assert await case.pool.check() == 1
        await until(lambda: not case.pool._tasks)
    assert "on_connection_dead() of a connection to 'a' failed: SystemExit: dead" in caplog.text


async def test_a_log_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raised.append(record.getMessage())
            raise SystemExit('in a log handler')

    handler = Broken()
    log = logging.getLogger('gcpool')
    monkeypatch.setattr(log, 'propagate', False)
    # The guard of the log writes to the standard error output what the handler raises.
    monkeypatch.setattr('sys.unraisablehook', lambda unraisable: None)
    log.addHandler(handler)
    try:
        async with Case(max_workers=1) as case:
            for endpoint in 'abc':
                await case.cycle(endpoint)
            case.manager.script('dispose', RuntimeError('in dispose'), SystemExit('in dispose'))
            await case.pool.drain()
            await until(lambda: case.manager.living == [] and case.pool.get_size() == 0)
            assert await case.cycle('d') == 'd1'
    finally:
        log.removeHandler(handler)
    assert raised != []


# -- what means the program -------------------------------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize('kind', ['on_event', 'create', 'dispose'])
def test_a_signal_handler_that_interrupts_a_callback_ends_the_program(kind: str) -> None:
    """``sys.exit()`` in a handler of SIGTERM is to end the program, wherever that is just then."""
    at_work: list[str] = []

    def interrupted() -> None:
        if not at_work:
            at_work.append(kind)
            signal.raise_signal(signal.SIGTERM)

    class Interrupted(Manager):
        async def create(self, endpoint: Any, timeout: float | None = None) -> Any:
            if kind == 'create':
                interrupted()
            return await super().create(endpoint)

        async def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
            if kind == 'dispose':
                interrupted()
            await super().dispose(endpoint, conn)

    cases: list[Case] = []

    async def main() -> None:
        case = Case(Interrupted(), on_event=lambda event: interrupted() if kind == 'on_event' else None)
        cases.append(case)
        case.pool.warm_up('a', 1)
        await until(lambda: case.stats['idle'] == 1)
        await case.pool.drain()
        await until(lambda: case.stats['size'] == 0)
        await asyncio.Event().wait()

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    try:
        with pytest.raises(SystemExit) as caught:
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 5
    [case] = cases
    case.pool._core.check_invariants()
    case.pool.terminate()


class Handlers:
    """Signal handlers as programs write them."""

    def method(self, signum: int, frame: FrameType | None) -> None:
        self.deeper()

    def deeper(self) -> None:
        sys.exit(1)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        sys.exit(1)


def with_more(more: object, *, signum: int = 0, frame: FrameType | None = None) -> None:
    sys.exit(1)


@needs_signals
@pytest.mark.parametrize(
    'handler',
    [
        lambda signum, frame: sys.exit(1),
        lambda *_: sys.exit(1),
        Handlers(),
        Handlers().method,
        functools.partial(Handlers.method, Handlers()),
        lambda signum, frame: with_more(None, frame=frame),
    ],
)
def test_a_handler_is_told_by_the_frame_that_it_is_given(handler: Callable[..., Any]) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert is_of_signal_handler(caught.value)


def test_a_callback_is_no_handler() -> None:
    def callback(event: object, *others: object) -> None:
        here = sys._getframe(1)
        assert here is not None
        sys.exit(1)

    for args in ((1,), (1, (2, 3))):
        with pytest.raises(SystemExit) as caught:
            callback(*args)
        assert not is_of_signal_handler(caught.value)
    assert not is_of_signal_handler(SystemExit())


def test_a_hook_in_a_task_of_the_program_ends_that() -> None:
    async def main() -> None:
        async with Case(HookedManager()) as case:
            conn = await case.pool.acquire('a')
            case.manager.script('on_release', SystemExit(1))
            await case.pool.release(conn)

    with pytest.raises(SystemExit):
        asyncio.run(main())
