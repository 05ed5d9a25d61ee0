"""LangGraph's checkpointer and store for PostgreSQL, which look whether they are given a pool of psycopg_pool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from psycopg.rows import dict_row

from tests.users.programs.common import database, expect_all_returned, expect_all_returned_async, get_pools

pools: Any = get_pools()

from langgraph.checkpoint.base import empty_checkpoint  # noqa: E402
from langgraph.checkpoint.postgres import PostgresSaver  # noqa: E402
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # noqa: E402
from langgraph.store.postgres import AsyncPostgresStore, PostgresStore  # noqa: E402

CONVERSATIONS = 24
STEPS = 3
# As LangGraph's documentation says.
OPTIONS: dict[str, Any] = {
    'kwargs': {'autocommit': True, 'prepare_threshold': 0, 'row_factory': dict_row},
    'min_size': 1,
    'max_size': 4,
}


def address(conversation: object) -> dict[str, Any]:
    return {'configurable': {'thread_id': str(conversation), 'checkpoint_ns': ''}}


def checkpoint_at(step: int) -> dict[str, Any]:
    return {**empty_checkpoint(), 'channel_values': {'step': step}, 'channel_versions': {'step': str(step)}}


def in_threads() -> None:
    with pools.ConnectionPool(database(), **OPTIONS) as pool:
        saver: Any = PostgresSaver(pool)
        saver.setup()

        def converse(conversation: int) -> None:
            config = address(conversation)
            for step in range(STEPS):
                config = saver.put(config, checkpoint_at(step), {'step': step}, {'step': str(step)})
                saver.put_writes(config, [('answer', step)], f'task {step}')
            last = saver.get_tuple(address(conversation))
            assert last.checkpoint['channel_values'] == {'step': STEPS - 1}, last
            assert last.pending_writes == [(f'task {STEPS - 1}', 'answer', STEPS - 1)], last
            assert len(list(saver.list(address(conversation)))) == STEPS
            saver.delete_thread(str(conversation))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(converse, range(CONVERSATIONS)))
        assert list(saver.list(None)) == []

        store: Any = PostgresStore(pool)
        store.setup()
        store.put(('users', 'ann'), 'likes', {'what': 'tea'})
        assert store.get(('users', 'ann'), 'likes').value == {'what': 'tea'}
        expect_all_returned(pool)
        assert pool.get_stats()['connections_num'] <= 4


async def in_tasks() -> None:
    async with pools.AsyncConnectionPool(database(), open=False, **OPTIONS) as pool:
        saver: Any = AsyncPostgresSaver(pool)
        await saver.setup()

        async def converse(conversation: int) -> None:
            config = address(conversation)
            for step in range(STEPS):
                config = await saver.aput(config, checkpoint_at(step), {'step': step}, {'step': str(step)})
            last = await saver.aget_tuple(address(conversation))
            assert last.checkpoint['channel_values'] == {'step': STEPS - 1}, last
            await saver.adelete_thread(str(conversation))

        await asyncio.gather(*map(converse, range(CONVERSATIONS)))
        assert [checkpoint async for checkpoint in saver.alist(None)] == []

        async with AsyncPostgresStore(pool) as store:
            await store.setup()
            await asyncio.gather(*(store.aput(('users', 'bob'), str(n), {'n': n}) for n in range(CONVERSATIONS)))
            found = await store.asearch(('users', 'bob'), limit=CONVERSATIONS)
            assert sorted(item.value['n'] for item in found) == list(range(CONVERSATIONS))
        await expect_all_returned_async(pool)


def main() -> None:
    in_threads()
    asyncio.run(in_tasks())
