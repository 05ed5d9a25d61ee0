"""Every operation, disturbed at each of its awaits: cancelled, thrown into, closed, timed out.

After each disturbance the books must balance, the next waiter must have what the operation held, and the cancellation
must have had its effect.
"""

import asyncio
import sys
from typing import Any

import pytest

from gcpool.exceptions import PoolTimeout
from tests.asyncio_.scenarios import ACQUIRES, SCENARIOS, Boom, Quake, Scenario, count, play
from tests.asyncio_.scenarios_of_operations import FAILS, OPERATIONS
from tests.asyncio_.stepping import (
    CANCELLATIONS,
    LOOPS,
    ClosedByHand,
    Connection,
    Interference,
    cancel_when_done,
    cancel_while_suspended,
    catch,
    close_by_hand,
    hand_timed,
    let_time_pass,
    run,
    throw,
    turns,
)

# Turns of the loop within which asyncio finishes what was begun.
HOLD = 8

EXCEPTIONS = {Boom, TimeoutError, asyncio.TimeoutError, Quake, KeyboardInterrupt, SystemExit, GeneratorExit}

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_scenario = pytest.mark.parametrize('scenario', SCENARIOS + OPERATIONS, ids=repr)
# Where whoever comes next is served, and does not fail, because the outage goes on.
each_served_scenario = pytest.mark.parametrize(
    'scenario', [s for s in SCENARIOS + OPERATIONS if s.settings != FAILS], ids=repr
)


@each_loop
@each_scenario
def test_where_it_is_suspended(kind: str, scenario: Scenario) -> None:
    """The other tests test nothing where an operation is not suspended."""

    async def main() -> None:
        interference = Interference()
        task = await play(scenario, interference)
        task.result()
        assert set(interference.places) == scenario.places

    run(kind, main)


@each_loop
@each_scenario
@pytest.mark.parametrize('cancel', CANCELLATIONS, ids=lambda act: act.__name__)
def test_cancelled_at_each_await(kind: str, scenario: Scenario, cancel: Any) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            for rivals in (0, 2):
                interference = Interference(cancel, {number})
                task = await play(scenario, interference, rivals=rivals)
                assert interference.acted == 1
                assert task.cancelled(), f'cancelled at {number} of {interference.places}, and went on'
                if sys.version_info >= (3, 11):
                    assert task.cancelling() == 1

    run(kind, main)


class From:
    """Return all numbers from 1 on."""

    def __init__(self, least: int):
        self._least = least

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        return number >= self._least


@each_loop
@each_scenario
def test_cancelled_again_while_it_cleans_up(kind: str, scenario: Scenario) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            interference = Interference(cancel_while_suspended, From(number))
            task = await play(scenario, interference, rivals=1)
            assert interference.acted >= 1
            assert task.cancelled()

    run(kind, main)


@each_loop
@each_served_scenario
def test_thrown_into_at_each_await(kind: str, scenario: Scenario) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            for exc_type in EXCEPTIONS:
                exc = exc_type()
                interference = Interference(throw(exc), {number})
                task = await play(scenario, interference, catch, rivals=1)
                assert interference.acted == 1
                result = task.result()
                if result is not exc:
                    assert isinstance(exc, Exception)
                    assert interference.places[number] in scenario.swallows
                    assert not isinstance(result, BaseException)

    run(kind, main)


@each_loop
@each_scenario
def test_closed_at_each_await(kind: str, scenario: Scenario) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            interference = Interference(close_by_hand, {number})
            task = await play(scenario, interference, catch, rivals=1)
            assert isinstance(task.result(), ClosedByHand)

    run(kind, main)


@each_loop
@pytest.mark.parametrize('scenario', [s for s in ACQUIRES if 'with_limit' in s.name], ids=repr)
def test_time_limit_over_at_each_await(kind: str, scenario: Scenario) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            for rivals in (0, 1):
                interference = Interference(let_time_pass, {number})
                task = await play(scenario, interference, catch, rivals=rivals)
                exc = task.result()
                if interference.places[number] in {'on_acquire', 'on_release'}:
                    # The hooks have no time limit, as in generic-connection-pool and with threads.
                    assert exc is None or isinstance(exc, Connection)
                    continue
                assert isinstance(exc, PoolTimeout), f'{exc!r} at {number} of {interference.places}'
                assert isinstance(exc, asyncio.TimeoutError)
                assert '3600 s' in str(exc)

    run(kind, main)


@each_loop
@pytest.mark.parametrize('scenario', [s for s in ACQUIRES if 'with_limit' in s.name], ids=repr)
def test_cancelled_when_the_time_is_over(kind: str, scenario: Scenario) -> None:
    """In one turn of the loop: whichever came first, the cancellation must not be lost."""

    def cancel_then_expire(awaited: Any, coro: Any) -> None:
        cancel_while_suspended(awaited, coro)
        let_time_pass(awaited, coro)

    def expire_then_cancel(awaited: Any, coro: Any) -> None:
        let_time_pass(awaited, coro)
        cancel_while_suspended(awaited, coro)

    async def main() -> None:
        for number in range(await count(scenario)):
            for act in (cancel_then_expire, expire_then_cancel):
                interference = Interference(act, {number})
                task = await play(scenario, interference, rivals=1)
                assert task.cancelled(), f'{act.__name__} at {number} of {interference.places}'

    run(kind, main)


# -- what surrounds the operation -------------------------------------------------------------------------------------

SURROUNDED = [s for s in SCENARIOS if not s.name.startswith('enter')]


def a_minute_passes(awaited: Any, coro: Any) -> None:
    hand_timed().advance(90.0)


@each_loop
@pytest.mark.parametrize('scenario', SURROUNDED, ids=repr)
def test_outer_wait_for_fires(kind: str, scenario: Scenario) -> None:
    async def surround(driven: Any) -> Any:
        try:
            return await asyncio.wait_for(driven, 60.0)
        except asyncio.TimeoutError as exc:
            return exc
        finally:
            await turns()

    async def main() -> None:
        for number in range(await count(scenario)):
            interference = Interference(a_minute_passes, {number}, HOLD)
            task = await play(scenario, interference, surround, rivals=1)
            result = task.result()
            assert isinstance(result, asyncio.TimeoutError)
            assert not isinstance(result, PoolTimeout)

    run(kind, main)


if sys.version_info >= (3, 11):

    @each_loop
    @pytest.mark.parametrize('act', [a_minute_passes, let_time_pass], ids=lambda act: act.__name__)
    @pytest.mark.parametrize('scenario', SURROUNDED, ids=repr)
    def test_outer_timeout_fires(kind: str, scenario: Scenario, act: Any) -> None:
        async def surround(driven: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            scope = asyncio.timeout(60.0)
            with pytest.raises(TimeoutError):
                async with scope:
                    await driven
            assert scope.expired()
            assert task.cancelling() == 0
            await turns()

        async def main() -> None:
            for number in range(await count(scenario)):
                interference = Interference(act, {number}, HOLD)
                task = await play(scenario, interference, surround, rivals=1)
                task.result()

        run(kind, main)

    @each_loop
    @pytest.mark.parametrize('scenario', SURROUNDED, ids=repr)
    def test_task_group_ends_with_the_error_of_another_task(kind: str, scenario: Scenario) -> None:
        async def fail() -> None:
            raise Boom

        async def play_in_group(number: int) -> None:
            group = asyncio.TaskGroup()

            def other_fails(awaited: Any, coro: Any) -> None:
                group.create_task(fail())

            async def be_in_group(driven: Any) -> None:
                async with group:
                    with pytest.raises(asyncio.CancelledError):
                        await driven
                    raise asyncio.CancelledError

            async def surround(driven: Any) -> None:
                task = asyncio.current_task()
                assert task is not None
                exc = await catch(be_in_group(driven))
                assert [type(each) for each in exc.exceptions] == [Boom]
                assert task.cancelling() == 0
                await turns()

            interference = Interference(other_fails, {number}, HOLD)
            task = await play(scenario, interference, surround, rivals=1)
            task.result()

        async def main() -> None:
            for number in range(await count(scenario)):
                await play_in_group(number)

        run(kind, main)


if sys.version_info >= (3, 12):

    @each_loop
    @each_served_scenario
    def test_cancelled_at_each_await_among_eager_tasks(kind: str, scenario: Scenario) -> None:
        async def main() -> None:
            for number in range(await count(scenario)):
                for cancel in CANCELLATIONS:
                    interference = Interference(cancel, {number})
                    task = await play(scenario, interference, rivals=2)
                    assert interference.acted == 1
                    assert task.cancelled()

        run(kind, main, eager=True)


@each_loop
@each_scenario
def test_cancelled_at_each_await_in_debug_mode(kind: str, scenario: Scenario) -> None:
    async def main() -> None:
        for number in range(await count(scenario)):
            task = await play(scenario, Interference(cancel_when_done, {number}), rivals=1)
            assert task.cancelled()

    run(kind, main, debug=True)
