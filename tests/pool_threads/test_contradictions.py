# Generated from tests/pool/test_contradictions.py by .github/scripts/generate_threading.py; do not edit.

"""Every pair of parameters that may contradict each other is accepted, or refused by name and without a trace."""

import inspect
import itertools
import math
import re
from typing import Any

import pytest

from gcpool.threading import ConnectionPool, NullConnectionPool
from tests.pool_threads.support import Case, CheckingManager, Manager


class Refusing(CheckingManager):
    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        return False


def failed(*args: Any) -> None:
    pass


# Valid values, the extremes first, and values that are refused by themselves.
COUNTS: dict[str, list[Any]] = {
    'min_idle': [0, 7],
    'max_size': [1, 5, 200],
    'total_max_size': [1, 6],
    'min_size': [0, 6],
    'max_waiting': [0, 1],
    'max_workers': [0, 1],
}
VALUES: dict[str, list[Any]] = {
    **COUNTS,
    'idle_timeout': [0, 50, math.inf],
    'max_lifetime': [0, 40, math.inf],
    'create_timeout': [None, 0.5, 0],
    'open': [False, 1],
    'close_timeout': [None, 0],
    'order': ['fifo', 'random'],
    'keep': ['idle', None],
    'create_in_background': [True, 'yes'],
    'max_connecting': [0, 9],
    'reconnect_timeout': [0, 30, -1],
    'reconnect_failed': [failed, 5],
    'wait_when_full': [True],
    'fail_fast': [True],
    'check_timeout': [None, 0],
    'keepalive_interval': [0, 45, math.inf],
    'lifetime_jitter': [0, 1, 2],
    'max_uses': [0, 1],
    'name': ['orders', 7],
    'record_holders': [True],
    'leak_threshold': [None, 10],
    'on_event': [None, 'print'],
}
PAIRS = [
    {one: first, other: second}
    for one, other in itertools.combinations(VALUES, 2)
    for first, second in itertools.product(VALUES[one], VALUES[other])
]


def refused_by_name(error: Exception, options: dict[str, Any]) -> bool:
    """Whether the error is of the right type, and its message names a parameter that was given."""
    return type(error) in (TypeError, ValueError) and any(re.search(rf'\b{name}\b', str(error)) for name in options)


@pytest.mark.parametrize('manager_class', [Manager, Refusing])
@pytest.mark.parametrize('pool_class', [ConnectionPool, NullConnectionPool])
def test_all_pairs_are_accepted_or_refused_by_name(manager_class: type[Manager], pool_class: Any) -> None:
    manager = manager_class()
    outcomes = {True: 0, False: 0}
    wrong = []
    for options in PAIRS:
        try:
            pool = pool_class(manager, **options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            outcomes[False] += 1
            if not refused_by_name(error, options):
                wrong.append((options, error))
        else:
            outcomes[True] += 1
            pool._core.check_invariants()
            assert pool.min_size <= pool.max_size <= pool.total_max_size, options
            assert pool.idle_timeout <= pool.max_lifetime, options
            # The collector and other workers have not begun: there is nothing to do yet.
            pool.close(timeout=0)
    assert wrong == []
    assert min(outcomes.values()) > 100
    assert manager.calls == []


def test_a_pair_that_resize_refuses_changes_nothing() -> None:
    start: dict[str, Any] = {
        'min_idle': 2,
        'max_size': 4,
        'total_max_size': 6,
        'min_size': 1,
        'max_waiting': 3,
        'max_workers': 2,
    }
    with Case(CheckingManager(), name='orders', **start) as case:
        pool = case.pool
        held = pool.acquire('a')
        refused = 0
        wrong = []
        for one, other in itertools.combinations(COUNTS, 2):
            for first, second in itertools.product([*COUNTS[one], -1, 'x', True], [*COUNTS[other], 1.5]):
                changes = {one: first, other: second}
                before = limits_and_counts(case)
                try:
                    pool.resize(**changes)
                except (TypeError, ValueError) as error:
                    refused += 1
                    if not refused_by_name(error, changes) or limits_and_counts(case) != before:
                        wrong.append((changes, error))
                else:
                    pool.resize(**start)
        assert wrong == []
        assert refused > 100
        case.release(held)
        assert len(case.manager.living) <= 2


def limits_and_counts(case: Case) -> tuple[Any, ...]:
    core = case.pool._core
    core.check_invariants()
    counts = [case.stats[name] for name in ('in_use', 'waiting', 'closed_shrunk')]
    return case.pool._known_limits().as_dict(), *counts


def test_all_new_parameters_are_paired() -> None:
    parameters = inspect.signature(ConnectionPool.__init__).parameters.values()
    public = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and not p.name.startswith('_')}
    # The others limit single calls, and contradict nothing.
    others = {'acquire_timeout', 'background_collector', 'dispose_batch_size', 'dispose_timeout', 'check_interval'}
    assert public - others == {*VALUES}
