"""How the pools of a process are found, and what that costs them: nothing."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

import gcpool.asyncio
from gcpool import monitor
from gcpool._pools import by_name, open_pools
from gcpool.threading import ConnectionPool, NullConnectionPool
from tests.monitor.support import AsyncManager, Manager, counts, modules_called, pool_in


def known(*pools: Any) -> list[Any]:
    """Which of some pools are found, in the order in which they are."""
    return [found for found in open_pools() if any(found is pool for pool in pools)]


def test_pools_of_both_runtimes_are_found_in_the_order_of_their_making() -> None:
    async def main() -> None:
        second = gcpool.asyncio.ConnectionPool(AsyncManager())
        third = NullConnectionPool(Manager())
        assert known(third, second, first) == [first, second, third]
        await second.close()
        assert known(first, second, third) == [first, third]
        third.close()

    with ConnectionPool(Manager()) as first:
        asyncio.run(main())


def test_a_closed_pool_is_gone() -> None:
    pool = ConnectionPool(Manager(), name='closed soon')
    assert known(pool) == [pool]
    pool.close()
    assert known(pool) == []
    assert 'closed soon' not in {found['name'] for found in monitor.snapshot()['pools']}


def test_a_pool_that_is_not_open_yet_is_found() -> None:
    pool = ConnectionPool(Manager(), open=False)
    assert known(pool) == [pool]
    pool.close()


def test_pools_are_held_weakly() -> None:
    pool = ConnectionPool(Manager(), name='dropped')
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert 'dropped' not in by_name(open_pools())


class Peculiar(ConnectionPool[Any, object]):
    """Is equal to all others of its kind, and so has no hash."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Peculiar)

    __hash__ = None  # type: ignore[assignment]


def test_pools_that_are_equal_are_two() -> None:
    with Peculiar(Manager()) as first, Peculiar(Manager()) as second:
        assert [id(pool) for pool in known(first, second)] == [id(first), id(second)]


def test_a_pool_that_could_not_be_built_is_not_found() -> None:
    before = len(open_pools())
    with pytest.raises(ValueError, match='max_size'):
        ConnectionPool(Manager(), max_size=0)
    assert len(open_pools()) == before


def test_pools_of_one_name_are_summed() -> None:
    with ConnectionPool(Manager(), name='twins') as first, ConnectionPool(Manager(), name='twins') as second:
        with first.connection('a'), second.connection('a'), second.connection('b'):
            found = pool_in(monitor.snapshot(), 'twins')
            assert found['pools'] == 2
            assert found['stats']['in_use'] == 3
            assert found['stats']['total_max_size'] == first.total_max_size + second.total_max_size
            assert {row['endpoint']: row['in_use'] for row in found['endpoints']} == {'a': 2, 'b': 1}
        for pool in (first, second):
            for name, histogram in pool.get_stats().histograms.items():
                assert len(found['histograms'][name]['counts']) == len(histogram.counts)
        found = pool_in(monitor.snapshot(), 'twins')
        uses = sum(found['histograms']['use']['counts'])
        assert uses == found['stats']['acquires'] == 3
        second.close()
        assert counts(pool_in(monitor.snapshot(), 'twins')['stats']) == counts(first.get_stats())


def test_neither_an_acquire_nor_a_release_knows_of_it() -> None:
    with ConnectionPool(Manager(), name='quick') as pool:
        monitor.snapshot()
        called = modules_called(pool)
        assert not [name for name in called if 'monitor' in name or 'pools' in name]
        assert pool.get_stats()['acquires'] == 201
