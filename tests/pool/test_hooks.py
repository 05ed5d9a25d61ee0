"""The methods of a manager: which of them a pool calls, and what they may do."""

from typing import Any

import pytest

from gcpool.asyncio import BaseConnectionManager
from gcpool.exceptions import ConnectionNotAcquired
from tests.pool.support import Case, JudgingManager, Manager
from tests.support import Connection

METHODS = [
    'normalize',
    'create',
    'check_aliveness',
    'on_acquire',
    'is_broken',
    'on_release',
    'dispose',
    'on_connection_dead',
]
HOOKS = ['check_aliveness', 'on_acquire', 'is_broken', 'on_release', 'on_connection_dead']


class ComingBack(JudgingManager):
    """Uses the pool in one of its methods, once; an endpoint counts as its name in lower case.

    :param method: the method
    """

    case: Case

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.came_back = False

    async def come_back(self, method: str, endpoint: Any) -> None:
        if method != self.method or self.came_back or endpoint == 'other':
            return
        self.came_back = True
        pool = self.case.pool
        pool._core.check_invariants()
        async with pool.connection('other', timeout=0) as conn:
            assert pool.get_stats()['acquired'] >= 1
            assert await pool.get_endpoint_pool_size('other', acquired=True) == 1
        assert conn.name == 'other1'

    def normalize(self, endpoint: Any) -> Any:
        if self.method == 'normalize' and endpoint == 'A':
            self.came_back = True
            self.case.pool._core.check_invariants()
            assert self.case.pool.get_stats()['endpoints'] == 0
            assert self.case.pool.get_size() == 0
        return endpoint.lower()

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        await self.come_back('create', endpoint)
        return await super().create(endpoint, timeout)

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        await self.come_back('dispose', endpoint)
        await super().dispose(endpoint, conn, timeout)

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        await self.come_back('check_aliveness', endpoint)
        return await super().check_aliveness(endpoint, conn, timeout)

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_acquire', endpoint)

    async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        await self.come_back('is_broken', endpoint)
        return True

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_release', endpoint)

    async def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_connection_dead', endpoint)


@pytest.mark.parametrize('method', METHODS)
async def test_every_method_of_a_manager_may_use_the_pool(method: str) -> None:
    manager = ComingBack(method)
    async with Case(manager) as case:
        manager.case = case
        for spelling in 'Aa':
            async with case.pool.connection(spelling):
                pass

        async def fail() -> None:
            async with case.pool.connection('a'):
                raise KeyError('mine')

        with pytest.raises(KeyError, match='mine'):
            await fail()
        assert manager.came_back
        assert (case.stats['broken'], case.stats['acquired']) == (1, 0)


async def live_through_everything(case: Case) -> None:
    """An acquire that connects, one that is checked, and one whose user fails."""
    await case.cycle('a')

    async def fail() -> None:
        async with case.pool.connection('a'):
            raise KeyError('mine')

    with pytest.raises(KeyError, match='mine'):
        await fail()


async def test_a_hook_that_is_not_overridden_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in HOOKS:
        monkeypatch.setattr(BaseConnectionManager, name, lambda self, *args, name=name: called.append(name))
    async with Case(Manager()) as case:
        await live_through_everything(case)
    assert called == []


async def test_which_hooks_a_manager_overrides_is_found_out_when_the_pool_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    async with Case(Manager()) as case:
        for name in HOOKS:
            monkeypatch.setattr(Manager, name, lambda self, *args, name=name: called.append(name), raising=False)
        await live_through_everything(case)
        assert called == []


class Releasing(JudgingManager):
    """Gives the connection that it is called for back itself, in one of its methods, once.

    :param method: the method
    :param lent: whether somebody else acquires the connection at once
    :param alive: what a check says then
    """

    case: Case

    def __init__(self, method: str, lent: bool, alive: bool = True) -> None:
        super().__init__()
        self.method = method
        self.lent = lent
        self.alive = alive
        self.armed = False
        self.holders: list[Connection] = []

    async def give_back(self, method: str, conn: Connection) -> bool:
        if method != self.method or not self.armed:
            return False
        self.armed = False
        await self.case.release(conn)
        if self.lent:
            self.holders.append(await self.case.pool.acquire('a'))
        return True

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        if await self.give_back('check_aliveness', conn):
            return self.alive
        return await super().check_aliveness(endpoint, conn, timeout)

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await self.give_back('on_acquire', conn)
        await super().on_acquire(endpoint, conn)


@pytest.mark.parametrize('lent', [False, True], ids=['idle', 'lent'])
@pytest.mark.parametrize('method', ['check_aliveness', 'on_acquire'])
async def test_a_connection_that_a_hook_gives_back_has_no_second_holder(method: str, lent: bool) -> None:
    manager = Releasing(method, lent)
    async with Case(manager) as case:
        manager.case = case
        await case.cycle('a')
        manager.armed = True
        with pytest.raises(ConnectionNotAcquired, match='released the connection <a1> during its own acquire'):
            await case.pool.acquire('a')
        assert case.stats['acquired'] == lent
        await case.release(*manager.holders)
        # Nobody has broken it, nor left it half checked.
        assert await case.cycle('a') == 'a1'
        assert manager.living == ['a1']


async def test_a_connection_that_a_check_gives_back_and_calls_dead_stays_with_its_new_holder() -> None:
    manager = Releasing('check_aliveness', lent=True, alive=False)
    async with Case(manager) as case:
        manager.case = case
        await case.cycle('a')
        manager.armed = True
        conn = await case.pool.acquire('a')
        assert [conn.name, *(holder.name for holder in manager.holders)] == ['a2', 'a1']
        await case.release(conn, *manager.holders)
        assert manager.living == ['a1', 'a2']
