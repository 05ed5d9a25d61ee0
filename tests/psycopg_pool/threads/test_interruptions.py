# Generated from tests/psycopg_pool/test_interruptions.py by .github/scripts/generate_threading.py; do not edit.

"""No connection is lost, wherever a signal handler raises in the code of the pools."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import gcpool.psycopg_pool
from gcpool.psycopg_pool import ConnectionPool, NullConnectionPool
from tests.interrupting import Interruptor
from tests.support import Interruption
from tests.threads.runtime import until

# Of a coroutine that is interrupted before its first step.
pytestmark = [
    pytest.mark.filterwarnings('ignore:coroutine .* was never awaited'),
    pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = Path(gcpool.psycopg_pool.__file__).parent
# The numbers of libpq.
IDLE, INTRANS, UNKNOWN = 0, 2, 4


class Connection:
    """What the pools use of one of psycopg's. No server is needed."""

    autocommit = False
    _pipeline = None

    def __init__(self) -> None:
        self.is_closed = False
        self.pgconn = SimpleNamespace(transaction_status=IDLE, finish=self.finish)

    @classmethod
    def connect(cls, conninfo: str = '', **_kwargs: object) -> 'Connection':
        return cls()

    def __enter__(self) -> 'Self':
        return self

    def __exit__(self, *_exc: object) -> None:
        self.pgconn.transaction_status = IDLE

    def rollback(self) -> None:
        self.pgconn.transaction_status = IDLE

    def commit(self) -> None:
        self.pgconn.transaction_status = IDLE

    def finish(self) -> None:
        self.pgconn.transaction_status = UNKNOWN

    def close(self) -> None:
        self.is_closed = True
        self.finish()


def nothing(conn: Any) -> None:
    """A callback."""


def take_and_return(pool: Any) -> None:
    conn = pool.getconn()
    pool.putconn(conn)


def use_in_a_block(pool: Any) -> None:
    with pool.connection():
        pass


def leave_a_transaction_to_the_block(pool: Any) -> None:
    with pool.connection() as conn:
        conn.pgconn.transaction_status = INTRANS


def return_a_transaction(pool: Any) -> None:
    conn = pool.getconn()
    conn.pgconn.transaction_status = INTRANS
    pool.putconn(conn)


def return_a_broken_one(pool: Any) -> None:
    conn = pool.getconn()
    conn.finish()
    pool.putconn(conn)


def close_in_a_block(pool: Any) -> None:
    with pool.connection() as conn:
        conn.close()


USES = [
    take_and_return,
    use_in_a_block,
    leave_a_transaction_to_the_block,
    return_a_transaction,
    return_a_broken_one,
    close_in_a_block,
]
OPTIONS: dict[str, dict[str, Any]] = {
    'nothing': {},
    'check': {'check': nothing},
    'reset': {'reset': nothing},
    'close_returns': {'close_returns': True},
}


def interrupt_everywhere(pool: Any, use: Callable[[Any], Awaitable[None]]) -> None:
    """Use a pool of at most one connection again and again, each time interrupted at a later place."""
    places: list[str] = []
    while True:
        interruptor = Interruptor(len(places), PACKAGE, use)
        try:
            with interruptor:
                use(pool)
        except Interruption:
            pass
        if interruptor.place is None:
            break
        places.append(interruptor.place)
        try:
            # Another client would have to wait for what was lost, for ever.
            pool.putconn(pool.getconn(5.0))
        except gcpool.psycopg_pool.PoolTimeout:
            pytest.fail(f'a connection was lost when {interruptor.place} was interrupted')
    assert len(places) > 2, places
    until(lambda: pool._engine.get_stats()['in_use'] == 0)
    pool._engine._core.check_invariants()


@pytest.mark.parametrize('use', USES)
@pytest.mark.parametrize('option', OPTIONS)
def test_no_connection_is_lost_wherever_a_signal_handler_raises(
    use: Callable[[Any], Awaitable[None]], option: str
) -> None:
    kind: Any = Connection
    pool = ConnectionPool(connection_class=kind, min_size=1, max_size=1, open=False, **OPTIONS[option])
    pool.open(wait=True)
    interrupt_everywhere(pool, use)
    pool.close()


@pytest.mark.parametrize('use', USES[:5])
def test_a_null_pool_loses_no_connection_either(use: Callable[[Any], Awaitable[None]]) -> None:
    kind: Any = Connection
    pool = NullConnectionPool(connection_class=kind, max_size=1, open=False)
    pool.open()
    interrupt_everywhere(pool, use)
    pool.close()
