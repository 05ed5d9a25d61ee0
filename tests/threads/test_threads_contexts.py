"""One context in two threads, or entered and left while it is entered: it has one connection, and loses none."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from gcpool.exceptions import ConnectionNotAcquired
from tests.pool_threads.support import Case, HookedManager
from tests.support import PATIENCE
from tests.threads.runtime import spawn

ENTERED = 'the connection context is entered already: call connection() once more for a second one'


class Endpoint:
    """Equal to every other one. What is scripted happens first, once, where one of them is hashed or compared."""

    then: ClassVar[dict[str, Callable[[], object]]] = {}

    def called(self, method: str) -> None:
        then = self.then.pop(method, None)
        if then is not None:
            then()

    def __hash__(self) -> int:
        self.called('__hash__')
        return 1

    def __eq__(self, other: object) -> bool:
        self.called('__eq__')
        return isinstance(other, Endpoint)


@pytest.mark.parametrize('method', ['__hash__', '__eq__'])
def test_a_context_that_its_own_endpoint_enters_meanwhile_is_refused_and_holds_one_connection(method: str) -> None:
    with Case(HookedManager(), max_size=2) as case:
        case.cycle(Endpoint())
        context = case.pool.connection(Endpoint())
        Endpoint.then[method] = context.__enter__
        with pytest.raises(RuntimeError) as refused:
            context.__enter__()
        assert str(refused.value) == ENTERED
        assert case.stats['acquired'] == 1
        context.__exit__(None, None, None)
        assert case.stats['acquired'] == 0


@pytest.mark.parametrize('method', ['__hash__', '__eq__'])
def test_a_context_that_its_own_endpoint_enters_and_leaves_meanwhile_is_entered(method: str) -> None:
    with Case(HookedManager(), max_size=2) as case:
        case.cycle(Endpoint())
        context = case.pool.connection(Endpoint())

        def enter_and_leave() -> None:
            with context:
                pass

        Endpoint.then[method] = enter_and_leave
        with context:
            assert Endpoint.then == {}
            assert case.stats['acquired'] == 1
        assert case.stats['acquired'] == 0


def test_a_context_that_is_left_while_the_connection_of_a_second_entry_is_given_back_serves_nothing_twice() -> None:
    """What the second entry acquired goes back, and the hook of that is where the first one leaves."""
    with Case(HookedManager(), max_size=2, min_idle=2) as case:
        case.cycle(Endpoint())
        context = case.pool.connection(Endpoint())
        Endpoint.then['__eq__'] = context.__enter__
        on_release = case.manager.on_release

        def leave_first(where: Any, conn: Any) -> None:
            case.manager.on_release = on_release  # type: ignore[method-assign]
            context.__exit__(None, None, None)
            on_release(where, conn)

        case.manager.on_release = leave_first  # type: ignore[method-assign, assignment]
        with pytest.raises(RuntimeError) as refused:
            context.__enter__()
        assert str(refused.value) == ENTERED
        assert case.stats['acquired'] == 0
        with pytest.raises(RuntimeError, match='was not entered'):
            context.__exit__(None, None, None)


@pytest.mark.parametrize('manager_class', [None, HookedManager])
def test_threads_that_enter_and_leave_one_context_at_once_lose_and_share_no_connection(
    manager_class: type[HookedManager] | None,
) -> None:
    """With the GIL they take turns. Without it, each step of one meets each of the others'."""
    count, rounds = 3, 300
    with Case(None if manager_class is None else manager_class(), max_size=count, min_idle=count) as case:
        case.release(*case.acquire('a', count))
        context = case.pool.connection('a')
        ready, entered = threading.Barrier(count), threading.Barrier(count)
        served: list[int] = []
        left: list[int] = []
        refused: list[str] = []

        def enter() -> None:
            for number in range(rounds):
                ready.wait(PATIENCE)
                try:
                    context.__enter__()
                except RuntimeError as error:
                    refused.append(str(error))
                else:
                    served.append(number)
                entered.wait(PATIENCE)
                # Now it is entered, by one; all leave it.
                try:
                    context.__exit__(None, None, None)
                except RuntimeError as error:
                    refused.append(str(error))
                else:
                    left.append(number)

        for job in [spawn(enter) for _ in range(count)]:
            job.result()
        assert sorted(served) == list(range(rounds)), 'one enters'
        assert sorted(left) == list(range(rounds)), 'one leaves'
        others = rounds * (count - 1)
        assert Counter(refused) == {ENTERED: others, 'the connection context was not entered': others}
        assert case.stats['acquired'] == 0
        assert case.stats['idle'] == count


def test_a_context_left_twice_at_once_gives_back_once() -> None:
    """The hook of the first end is where the second one comes."""
    with Case(HookedManager()) as case:
        context = case.pool.connection('a')
        context.__enter__()
        errors: list[Any] = []

        def leave_again(where: Any, conn: Any) -> None:
            with pytest.raises((RuntimeError, ConnectionNotAcquired)) as caught:
                context.__exit__(None, None, None)
            errors.append(caught.value)

        case.manager.on_release = leave_again  # type: ignore[method-assign, assignment]
        context.__exit__(None, None, None)
        assert [str(error) for error in errors] == ['the connection context was not entered']
        assert case.stats['idle'] == 1
