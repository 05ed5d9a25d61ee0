"""The core alone, simulated: what the simulator promises, and that it finds what is wrong."""

import os
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from gcpool._core import Entry, PoolCore, Waiter
from tests.conftest import QUICK
from tests.simulation import compiled, core
from tests.simulation.failure import SimulationError

# The compiler may have to run first.
pytestmark = pytest.mark.timeout(compiled.PATIENCE + 120)

STEPS = 200_000 if QUICK else 4_000_000


@pytest.fixture(scope='module', autouse=True)
def driver() -> None:
    try:
        core.load()
    except compiled.CannotCompile as exc:
        pytest.skip(str(exc))


def test_the_core_answers_as_the_model_does() -> None:
    # The error names the seed. With CI=true nothing is drawn, as for Hypothesis.
    core.simulate(2 if os.environ.get('CI') == 'true' else secrets.randbits(63), STEPS)


def test_the_same_seed_leads_to_the_same_trace() -> None:
    trace = core.simulate(7, 20_000)
    assert core.simulate(7, 20_000) == trace
    assert core.simulate(8, 20_000) != trace
    assert core.simulate(7, 20_001) != trace


@pytest.mark.parametrize('seed', [0, -1, 2**64 + 1])
def test_any_number_is_a_seed(seed: int) -> None:
    assert core.simulate(seed, 1000) == core.simulate(seed, 1000)


def test_exactly_so_many_questions_are_asked() -> None:
    assert core.simulate(3, 0) == core.simulate(3, 0)
    with pytest.raises(SimulationError) as caught:
        core.simulate(3, 20_000, ClosesInAnotherOrder)
    step = caught.value.step
    with pytest.raises(SimulationError) as again:
        core.simulate(3, step, ClosesInAnotherOrder)
    assert again.value.step == step


class Wrong:
    """A core whose answers are right but for what a subclass makes of one of them."""

    def __init__(self, *arguments: Any, **further: Any) -> None:
        self.core = PoolCore(*arguments, **further)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)


class ClosesInAnotherOrder(Wrong):
    def take_doomed_for_worker(self) -> Entry | None:
        first = self.core.take_doomed_for_worker()
        second = self.core.take_doomed_for_worker()
        if first is None or second is None:
            return first
        self.core.doom_again(first)
        return second


class ExpiresOneTooMany(Wrong):
    def doom_due(self, now: float, limit: int, for_worker: bool) -> int:
        return self.core.doom_due(now, limit + (limit > 0), for_worker)


class LeavesTheDisposeToNobody(Wrong):
    def retire(self, entry: Entry, now: float, discarded: bool) -> bool:
        self.core.retire(entry, now, discarded=discarded)
        return False


class NeverDoubts(Wrong):
    def needs_check(self, waiter: Waiter, now: float, interval: float) -> bool:
        return False


class ForgetsTheRestOfACheck(Wrong):
    def end_check(self, waiter: Waiter) -> None:
        pass


class ClosesNothing(Wrong):
    def close(self) -> None:
        pass


class ResizesTheEndpointsOnly(Wrong):
    def resize(self, now: float, **limits: int) -> None:
        limits.pop('total_max_size', None)
        self.core.resize(now, **limits)


class TakesWhatIsForeign(Wrong):
    def find_acquired(self, conn: object, endpoint: object) -> Entry | None:
        return self.core.entry_if_acquired(conn, endpoint)


class GivesUpNothing(Wrong):
    def give_up(self, waiter: Waiter) -> bool:
        return waiter.queued


class CountsWrong(Wrong):
    def stats(self) -> dict[str, int]:
        return {**self.core.stats(), 'timeouts': 0}


class IsOutOfBalance(Wrong):
    def check_invariants(self) -> None:
        self.core.check_invariants()
        if self.core.doomed == 3:
            raise AssertionError('the books do not balance')


@pytest.mark.parametrize('wrong', Wrong.__subclasses__())
def test_what_is_wrong_is_found_where_it_was_found_before(wrong: Callable[..., Any]) -> None:
    found = []
    for _ in range(2):
        with pytest.raises(SimulationError) as caught:
            core.simulate(11, 100_000, wrong)
        assert caught.value.seed == 11
        assert 0 < caught.value.step <= 100_000
        found.append(caught.value.step)
    assert found[0] == found[1]


def test_what_it_takes_to_compile_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(compiled.CannotCompile, match='Cython is not installed'):
        compiled.extension('_core_lockstep')
