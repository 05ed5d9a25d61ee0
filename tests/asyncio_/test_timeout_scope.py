"""The timeout for Python 3.10, compared with ``asyncio.timeout`` wherever that exists: both pass the same tests."""

import asyncio
import sys
from typing import Any

import pytest

from gcpool._timeout310 import timeout_scope
from tests.asyncio_.stepping import LOOPS, hand_timed, in_turns, run, turns, until

SCOPES: list[Any] = [timeout_scope]
if sys.version_info >= (3, 11):
    SCOPES.append(asyncio.timeout)

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_scope = pytest.mark.parametrize('scope', SCOPES, ids=lambda scope: scope.__module__)


class Boom(Exception):
    """An error of the block."""


def is_own(scope: Any) -> bool:
    return scope is timeout_scope


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def for_ever_in_a_task() -> None:
    await asyncio.get_running_loop().create_task(for_ever())


async def for_ever_in_tasks() -> None:
    await asyncio.gather(for_ever(), for_ever_in_a_task())


async def for_ever_in_turns() -> None:
    while True:
        await turns()


WAITS = [for_ever, for_ever_in_a_task, for_ever_in_tasks, for_ever_in_turns]
each_wait = pytest.mark.parametrize('wait', WAITS, ids=lambda wait: wait.__name__)


def start(coro: Any) -> 'asyncio.Task[Any]':
    return asyncio.get_running_loop().create_task(coro)


@each_loop
@each_scope
def test_ends_in_time(kind: str, scope: Any) -> None:
    async def main() -> None:
        async with scope(10) as entered:
            await in_turns(3)
            hand_timed().advance(9)
            await turns(3)
        assert not entered.expired()
        hand_timed().advance(100)
        await turns(3)
        assert not entered.expired()
        assert hand_timed().pending_timers() == 0

    run(kind, main)


@each_loop
@each_scope
@each_wait
@pytest.mark.parametrize('delay', [10, 0, -1])
def test_is_over(kind: str, scope: Any, wait: Any, delay: float) -> None:
    async def limited() -> str:
        entered = scope(delay)
        try:
            async with entered:
                await wait()
        except asyncio.TimeoutError:
            assert entered.expired()
            # Nothing of it is left.
            await turns(3)
            return 'over'
        return 'not over'

    async def main() -> None:
        task = start(limited())
        await turns(3)
        hand_timed().advance(11)
        await until(task.done, 'it is over')
        assert task.result() == 'over'

    run(kind, main)


@each_loop
@each_scope
def test_delay_of_nothing_leaves_time_for_what_does_not_wait(kind: str, scope: Any) -> None:
    async def main() -> None:
        async with scope(0) as entered:
            value = 1
        assert value == 1
        await turns(3)
        assert not entered.expired()

    run(kind, main)


@each_loop
@each_scope
@pytest.mark.parametrize('exc_type', [Boom, asyncio.TimeoutError, KeyError])
def test_error_inside(kind: str, scope: Any, exc_type: type[Exception]) -> None:
    """Also a TimeoutError like its own: expired() tells them apart."""

    async def main() -> None:
        entered = scope(10)
        exc = exc_type()
        with pytest.raises(exc_type) as caught:
            async with entered:
                raise exc
        assert caught.value is exc
        assert not entered.expired()
        assert hand_timed().pending_timers() == 0

    run(kind, main)


@each_loop
@each_scope
def test_error_while_cleaning_up_when_it_is_over(kind: str, scope: Any) -> None:
    async def limited() -> None:
        async with scope(10):
            try:
                await for_ever()
            except asyncio.CancelledError:
                raise Boom from None

    async def main() -> None:
        task = start(limited())
        await turns(2)
        hand_timed().advance(11)
        await until(task.done, 'it is over')
        assert isinstance(task.exception(), Boom)

    run(kind, main)


@each_loop
@each_scope
def test_what_is_inside_may_go_on(kind: str, scope: Any) -> None:
    """If it catches the cancellation it keeps what it has."""

    async def limited() -> Any:
        async with scope(10) as entered:
            try:
                await for_ever()
            except asyncio.CancelledError:
                await turns(2)
        await turns(2)
        return entered.expired()

    async def main() -> None:
        task = start(limited())
        await turns(2)
        hand_timed().advance(11)
        await until(task.done, 'it ends')
        assert task.result() is True

    run(kind, main)


@each_loop
@each_scope
@each_wait
def test_cancelled_by_somebody_else(kind: str, scope: Any, wait: Any) -> None:
    async def limited() -> None:
        async with scope(10):
            await wait()

    async def main() -> None:
        task = start(limited())
        await turns(3)
        task.cancel()
        await until(task.done, 'it is cancelled')
        assert task.cancelled()
        assert hand_timed().pending_timers() == 0

    run(kind, main)


@each_loop
@each_scope
@each_wait
@pytest.mark.parametrize('lead', range(-3, 4))
@pytest.mark.parametrize('message', [None, 'why'])
def test_cancelled_by_somebody_else_about_when_it_is_over(
    kind: str, scope: Any, wait: Any, lead: int, message: str | None
) -> None:
    """The cancellation comes some turns before, after, or in the very turn, in either order: it is not taken for a
    timeout.

    :param lead: the number of turns after the timeout in which the task is cancelled
    """

    async def limited() -> None:
        async with scope(10):
            await wait()

    async def main() -> None:
        for cancel_first in (True, False):
            task = start(limited())
            await turns(3)
            loop = hand_timed()

            def cancel(task: 'asyncio.Task[None]' = task) -> None:
                if message is None:
                    task.cancel()
                else:
                    task.cancel(message)

            actions: list[Any] = [cancel, lambda loop=loop: loop.advance(11)]
            early, late = actions if cancel_first else actions[::-1]
            early()
            await turns(abs(lead))
            in_time = not task.done()
            late()
            await until(task.done, 'it ends')
            if cancel_first or in_time:
                assert task.cancelled()
            else:
                assert isinstance(task.exception(), asyncio.TimeoutError)

    run(kind, main)


@each_loop
@each_scope
def test_cancelled_by_somebody_else_while_it_cleans_up(kind: str, scope: Any) -> None:
    async def limited() -> None:
        async with scope(10):
            try:
                await for_ever()
            finally:
                await turns(6)

    async def main() -> None:
        task = start(limited())
        await turns(2)
        hand_timed().advance(11)
        await turns(4)
        task.cancel()
        await until(task.done, 'it ends')
        assert task.cancelled()

    run(kind, main)


@each_loop
@each_scope
def test_one_after_the_other(kind: str, scope: Any) -> None:
    """The next one does not take the effects of the previous one for another's."""

    async def limited() -> int:
        over = 0
        for _ in range(3):
            try:
                async with scope(10):
                    await for_ever()
            except asyncio.TimeoutError:
                over += 1
        return over

    async def main() -> None:
        task = start(limited())
        for _ in range(3):
            await turns(3)
            hand_timed().advance(11)
        await until(task.done, 'it ends')
        assert task.result() == 3

    run(kind, main)


async def nested(scope: Any, outer_delay: float, inner_delay: float, seen: list[str]) -> str:
    try:
        async with scope(outer_delay):
            try:
                async with scope(inner_delay):
                    await for_ever()
            except asyncio.TimeoutError:
                seen.append('inner')
                await turns(3)
                raise
    except asyncio.TimeoutError:
        await turns(3)
        return 'over'
    return 'not over'


@each_loop
@each_scope
def test_the_inner_one_is_over(kind: str, scope: Any) -> None:
    async def main() -> None:
        seen: list[str] = []
        task = start(nested(scope, 100, 10, seen))
        await turns(2)
        hand_timed().advance(50)
        await until(task.done, 'it ends')
        assert (task.result(), seen) == ('over', ['inner'])

    run(kind, main)


@each_loop
@each_scope
def test_the_outer_one_is_over(kind: str, scope: Any) -> None:
    async def main() -> None:
        seen: list[str] = []
        task = start(nested(scope, 10, 100, seen))
        await turns(2)
        hand_timed().advance(50)
        await until(task.done, 'it ends')
        assert (task.result(), seen) == ('over', [])
        assert hand_timed().pending_timers() == 0

    run(kind, main)


@each_loop
@each_scope
@pytest.mark.parametrize(('outer', 'inner'), [(10, 10), (10, 20), (20, 10)])
def test_both_are_over_in_one_turn(kind: str, scope: Any, outer: float, inner: float) -> None:
    """The outer one decides: code between them must not continue."""

    async def main() -> None:
        seen: list[str] = []
        task = start(nested(scope, outer, inner, seen))
        await turns(2)
        hand_timed().advance(50)
        await until(task.done, 'it ends')
        assert (task.result(), seen) == ('over', [])

    run(kind, main)


@each_loop
@each_scope
def test_both_are_over_and_it_is_cancelled_in_one_turn(kind: str, scope: Any) -> None:
    async def main() -> None:
        for cancel_first in (True, False):
            seen: list[str] = []
            task = start(nested(scope, 10, 10, seen))
            await turns(2)
            if cancel_first:
                task.cancel()
            hand_timed().advance(50)
            if not cancel_first:
                hand_timed().call_soon(task.cancel)
            await until(task.done, 'it ends')
            assert task.cancelled()
            assert seen == []

    run(kind, main)


@each_loop
@each_scope
def test_one_in_a_task_inside_of_another(kind: str, scope: Any) -> None:
    """A task's timeout cancels the task that it awaits, in which this is a foreign cancellation."""

    async def main() -> None:
        for outer, inner in ((10, 100), (10, 10)):
            seen: list[str] = []

            async def child(inner: float = inner, seen: list[str] = seen) -> None:
                try:
                    async with scope(inner):
                        await for_ever()
                except asyncio.TimeoutError:
                    seen.append('inner')
                    raise

            async def parent(outer: float = outer, child: Any = child) -> str:
                try:
                    async with scope(outer):
                        await start(child())
                except asyncio.TimeoutError:
                    return 'over'
                return 'not over'

            task = start(parent())
            await turns(4)
            hand_timed().advance(50)
            await until(task.done, 'it ends')
            assert task.result() == 'over'
            if inner > outer:
                assert seen == []

    run(kind, main)


@each_loop
def test_a_task_is_as_it_was_afterwards(kind: str) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        cancel = task.cancel
        async with timeout_scope(10):
            async with timeout_scope(10):
                await turns()
            assert task.cancel != cancel
        assert task.cancel == cancel

    run(kind, main)


@each_scope
def test_outside_of_a_task(scope: Any) -> None:
    async def enter() -> None:
        async with scope(10):
            pytest.fail('entered')

    async def main() -> None:
        outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

        def without_task() -> None:
            try:
                enter().send(None)
            except BaseException as exc:  # noqa: BLE001 - looked at below
                outcome.set_result(exc)
            else:
                outcome.set_result(None)

        asyncio.get_running_loop().call_soon(without_task)
        assert isinstance(await outcome, RuntimeError)

    run('asyncio', main)
    assert is_own(timeout_scope)
