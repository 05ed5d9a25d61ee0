"""Log handlers that raise: whatever the pool logs, it goes on, and a user whose connection is fine notices nothing.

A handler may send log records to a server, and that server may be down.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, final

import pytest

from gcpool.exceptions import DiscardConnection
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, JudgingManager
from tests.support import Interruption


@final
class FailingHandler(logging.Handler):
    """Raises what it is told to, at each message that has the text it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.start = ''
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if self.error is not None and self.start in record.getMessage():
            self.said.append(record.getMessage())
            raise self.error


@pytest.fixture
def handler() -> Iterator[FailingHandler]:
    logger = logging.getLogger('gcpool')
    handler, level = FailingHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """Exceptions that could not be raised further."""
    found: list[BaseException | None] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda args: found.append(args.exc_value))
    return found


# What makes the pool log something: the beginning of the message, and how to cause it. Nothing is in use at the end.


async def create(case: Case) -> None:
    assert (await case.cycle('a')) == 'a1'


async def dispose_of_what_is_due(case: Case) -> None:
    await case.cycle('b')
    case.clock.advance(100)
    await case.cycle('a')
    assert case.manager.living == ['a1']


async def fail_to_dispose(case: Case) -> None:
    case.manager.script('dispose', OSError('no'), OSError('no'))
    await dispose_of_what_is_due(case)


async def dispose_too_slowly(case: Case) -> None:
    case.manager.script('dispose', TimeoutError('slow'), TimeoutError('slow'))
    await dispose_of_what_is_due(case)


async def evict(case: Case) -> None:
    a = await case.acquire('a', 2)
    await case.release(*a)
    case.manager.script('dispose', OSError('no'))
    b = await case.acquire('b', 1)
    await case.release(*b)


async def find_one_dead(case: Case) -> None:
    await case.cycle('a')
    case.manager.script('check_aliveness', False)
    case.manager.script('dispose', OSError('no'))
    assert (await case.cycle('a')) == 'a2'
    assert case.manager.take_calls().count('on_connection_dead a1') == 1


async def lose(case: Case) -> None:
    async with case.pool.connection('a'):
        raise KeyError('lost')


async def fail_to_judge(case: Case) -> None:
    case.manager.script('is_broken', ValueError('no'))
    with pytest.raises(KeyError, match='lost'):
        await lose(case)
    assert case.manager.take_calls().count('on_connection_dead a1') == 1


async def discard(case: Case) -> None:
    case.manager.script('on_release', DiscardConnection('doubtful'))
    await case.cycle('a')
    assert case.manager.living == []


async def close_and_wait(case: Case) -> None:
    [conn] = await case.acquire('a', 1)
    job = spawn(case.pool.close)
    await until(lambda: case.pool._core.closed)
    await case.release(conn)
    assert (await job.result()) == 0


async def close_over_what_is_out(case: Case) -> None:
    [conn] = await case.acquire('a', 1)
    assert (await case.pool.close(timeout=0)) == 1
    assert case.manager.living == []
    await case.release(conn)


EVENTS: list[tuple[str, Callable[[Case], Any]]] = [
    ("connection to 'a' created", create),
    ("connection to 'b' closed", dispose_of_what_is_due),
    ("closing a connection to 'b' failed: OSError: no", fail_to_dispose),
    ("closing a connection to 'b' timed out: slow", dispose_too_slowly),
    ("closing a connection to 'a' failed: OSError: no", evict),
    ("closing a connection to 'a' failed: OSError: no", find_one_dead),
    ("is_broken() failed for a connection to 'a'", fail_to_judge),
    ("on_release asked to close a connection to 'a': doubtful", discard),
    ('closing the pool: waiting for 1 connections to be returned or closed', close_and_wait),
    ('closing the pool: 1 connections were not released', close_over_what_is_out),
]
IDS = [event.__name__ for _, event in EVENTS]


def make_case() -> Case:
    return Case(JudgingManager(), total_max_size=2, max_size=2, min_idle=0, idle_timeout=10)


@pytest.mark.parametrize(('message', 'event'), EVENTS, ids=IDS)
async def test_a_handler_that_raises_reaches_nobody_and_no_work_is_left_out(
    message: str,
    event: Callable[[Case], Any],
    handler: FailingHandler,
    unraisable: list[BaseException | None],
) -> None:
    handler.error = OSError('the log server is down')
    async with make_case() as case:
        await event(case)
    assert any(message in said for said in handler.said)
    assert unraisable == [handler.error] * len(handler.said)


# On asyncio disposals run in tasks of their own, whose exceptions the event loop reports; this is for threads.
IN_THE_CALLER = [
    (message, event)
    for message, event in EVENTS
    if not message.startswith(('closing a connection', "connection to 'b"))
]


@pytest.mark.parametrize(('message', 'event'), IN_THE_CALLER)
async def test_an_interruption_in_a_handler_loses_nothing(
    message: str, event: Callable[[Case], Any], handler: FailingHandler
) -> None:
    await raise_in_handler(message, event, handler, Interruption('in a handler'))


async def raise_in_handler(
    message: str, event: Callable[[Case], Any], handler: FailingHandler, error: BaseException
) -> None:
    """The exception reaches the caller. Steps of the event may have been skipped, but no connection or slot is lost."""
    async with make_case() as case:
        handler.error, handler.start = error, message
        try:
            await event(case)
        except (type(error), AssertionError):
            assert handler.said != []
        else:
            raise AssertionError('it reached nobody')
        handler.error = None
        for conn in case.manager.connections:
            entry = case.pool._core.entry_if_acquired(conn, conn.endpoint)
            if entry is not None:
                await case.release(conn)
        await case.pool._dispose_doomed()
        assert case.stats['acquired'] == 0
        await until(lambda: case.pool.get_size() == case.stats['idle'])
        case.pool._core.check_invariants()
        if not case.pool._core.closed:
            first, second = await case.acquire('c', 2)
            await case.release(first, second)


@pytest.mark.parametrize('error', [OSError('no'), TimeoutError('no')], ids=['error', 'timeout'])
async def test_the_collector_goes_on_whatever_dispose_and_a_handler_raise(
    error: BaseException, handler: FailingHandler, unraisable: list[BaseException | None]
) -> None:
    handler.error = OSError('the log server is down')
    async with Case(background_collector=True, min_idle=0, idle_timeout=0.005) as case:
        for _ in range(3):
            case.manager.script('dispose', error)
            await case.cycle('a')
            case.clock.advance(0.005)
            await until(lambda: case.pool.get_size() == 0)
    assert handler.error in unraisable


LEVELS: dict[Any, int] = {
    create: logging.DEBUG,
    dispose_of_what_is_due: logging.DEBUG,
    fail_to_dispose: logging.ERROR,
    dispose_too_slowly: logging.ERROR,
    fail_to_judge: logging.ERROR,
    close_over_what_is_out: logging.WARNING,
}


@pytest.mark.parametrize(('message', 'event'), [pair for pair in EVENTS if pair[1] in LEVELS])
async def test_what_happens_is_logged_at_its_level(
    message: str, event: Callable[[Case], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, 'gcpool')
    async with make_case() as case:
        await event(case)
    levels = {record.levelno for record in caplog.records if message in record.getMessage()}
    assert levels == {LEVELS[event]}
    assert {record.name for record in caplog.records} <= {'gcpool', 'asyncio'}
