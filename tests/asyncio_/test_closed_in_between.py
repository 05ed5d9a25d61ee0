"""A loop that is closed while another thread is about to have it do something: nothing is raised, and nothing is lost.

The pool asks whether its loop runs, and then calls it. In between the loop may stop and be closed.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.test_leases import in_thread
from tests.pool.support import CheckingManager
from tests.support import Connection


class ClosedInBetween(asyncio.SelectorEventLoop):
    """Seems to run until it is called from another thread: then it is closed."""

    closes = False
    was_called = 0

    def is_running(self) -> bool:
        return self.closes or super().is_running()

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, **options: Any) -> Any:  # type: ignore[override]
        if self.closes:
            self.closes = False
            self.was_called += 1
            self.close()
        return super().call_soon_threadsafe(callback, *args, **options)


Pool = ConnectionPool[str, Connection]


def use(conns: list[Connection], pool: Pool, name: str) -> None:
    {
        'release_nowait': lambda: pool.release_nowait(conns[0]),
        'detach': lambda: pool.detach(conns[0]),
        'warm_up': lambda: pool.warm_up('c', 1),
        'suspend': pool.suspend,
        'terminate': pool.terminate,
        # What they and finalised coroutines come to.
        '_spawn_checks': pool._spawn_checks,
        '_spawn_disposals': pool._spawn_disposals,
        '_begin_disposals': pool._begin_disposals,
        '_call_workers': pool._call_workers,
        '_collector.wake': pool._collector.wake,
    }[name]()


@pytest.mark.parametrize('has_event', [False, True])
@pytest.mark.parametrize(
    'name',
    [
        'release_nowait',
        'detach',
        'warm_up',
        'suspend',
        'terminate',
        '_spawn_checks',
        '_spawn_disposals',
        '_begin_disposals',
        '_call_workers',
        '_collector.wake',
    ],
)
def test_a_loop_that_is_closed_in_between_is_a_closed_loop(
    name: str, has_event: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda report: unraisable.append(report.exc_value))
    loop = ClosedInBetween()
    manager = CheckingManager()
    conns: list[Connection] = []

    async def main() -> Pool:
        pool: Pool = ConnectionPool(
            manager,
            background_collector=True,
            max_size=2,
            total_max_size=3,
            on_event=(lambda event: None) if has_event else None,
        )
        conns.append(await pool.acquire('a'))
        await pool.release(await pool.acquire('b'))
        await asyncio.sleep(0)
        return pool

    pool = loop.run_until_complete(main())
    if name == '_begin_disposals':
        pool._core.drain('b', pool._core.now())
    loop.closes = True
    in_thread(lambda: use(conns, pool, name))
    if loop.was_called == 0:
        # A suspension tells only on_event; a detach dooms nothing here.
        assert name in ('suspend', 'detach')
        assert not has_event or name == 'detach'
        loop.closes = False
        loop.close()
    assert loop.is_closed()
    pool._core.check_invariants()
    pool.terminate()
    assert pool.get_size() == 0
    assert unraisable == []


def test_a_context_that_is_dropped_then_gives_back_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda report: unraisable.append(report.exc_value))
    loop = ClosedInBetween()
    contexts: list[Any] = []

    async def main() -> Pool:
        pool: Pool = ConnectionPool(CheckingManager())
        # Without the GIL an object is freed in the thread that made it, if that is still there.
        in_thread(lambda: contexts.append(pool.connection('a')))
        await contexts[0].__aenter__()
        return pool

    pool = loop.run_until_complete(main())
    loop.closes = True
    in_thread(contexts.clear)
    assert loop.was_called == 1
    assert pool.get_stats()['in_use'] == 0
    pool._core.check_invariants()
    pool.terminate()
    assert unraisable == []
