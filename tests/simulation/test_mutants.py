"""The harness of the wrong changes, and that each of them can still be made."""

import sys
from collections import Counter
from pathlib import Path

import pytest

import gcpool._core
from tests.simulation import mutants
from tests.simulation.mutants import NotPossible, Verdict
from tests.simulation.wrong_changes import WRONG_CHANGES, WrongChange

# This one changes nothing, and nothing may be found.
EQUIVALENT = WrongChange(
    'equivalent',
    ('asyncio', 'threads'),
    'before it ends.\nIDLE_TIME = 10.0',
    'before it ends.\nIDLE_TIME = 10.0  # as before',
    'none',
)

SEED = 1
STEPS = 3_000


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(mutants, 'DIRECTORY', tmp_path)
    return tmp_path


def by_name(name: str) -> WrongChange:
    return next(change for change in WRONG_CHANGES if change.name == name)


# -- the changes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('change', WRONG_CHANGES, ids=lambda change: change.name)
def test_each_change_can_be_made(change: WrongChange) -> None:
    path = mutants.find(change)
    text = (mutants.ROOT / path).read_text(encoding='utf-8')
    assert text.replace(change.old, change.new) != text


@pytest.mark.parametrize('change', WRONG_CHANGES, ids=lambda change: change.name)
def test_each_change_has_to_be_found_by_somebody_and_does_harm(change: WrongChange) -> None:
    assert change.found_by
    assert set(change.found_by) <= set(mutants.SIMULATORS)
    assert change.harm


def test_there_are_enough_changes_for_each_simulator_and_no_name_twice() -> None:
    names = Counter(change.name for change in WRONG_CHANGES)
    assert max(names.values()) == 1
    assert len(names) >= 25
    for simulator in mutants.SIMULATORS:
        assert sum(simulator in change.found_by for change in WRONG_CHANGES) >= 10


@pytest.mark.parametrize('old', ['no such text in any file', 'self.'], ids=['nowhere', 'more than once'])
def test_a_change_whose_text_does_not_stand_once_is_refused(old: str) -> None:
    with pytest.raises(NotPossible, match='lost: its text has to stand once'):
        mutants.find(WrongChange('lost', ('core',), old, '', 'none'))


def test_a_copy_that_cannot_be_imported_is_refused() -> None:
    broken = WrongChange('broken', ('core',), EQUIVALENT.old, '\nIDLE_TIME = 1 / 0', 'none')
    with pytest.raises(NotPossible, match='ZeroDivisionError'):
        mutants.prepare(broken)


def test_a_copy_is_that_of_the_sources_with_the_change(directory: Path) -> None:
    source = mutants.prepare(EQUIVALENT)
    path = mutants.find(EQUIVALENT)
    assert source == directory / 'equivalent' / 'src'
    changed = (source.parent / path).read_text(encoding='utf-8')
    assert changed.replace(EQUIVALENT.new, EQUIVALENT.old) == (mutants.ROOT / path).read_text(encoding='utf-8')
    assert (source / 'gcpool' / Path(gcpool._core.__file__).name).exists()


def test_a_change_of_the_asyncio_half_reaches_the_threading_half() -> None:
    source = mutants.prepare(by_name('served-after-its-close'))
    for name in ('asyncio', 'threading'):
        text = (source / 'gcpool' / f'{name}.py').read_text(encoding='utf-8')
        assert 'must_hold(' not in text


# -- how a run ends ---------------------------------------------------------------------------------------------------


def watch(program: str, limit: float = 60.0) -> Verdict:
    return mutants.watch([sys.executable, '-c', program], Path(mutants.ROOT, 'src'), limit)


def test_a_run_that_ends_well_has_found_nothing() -> None:
    assert watch('print("seed 1, step 2: nothing to see")').fault is None


def test_a_broken_rule_is_found_at_its_step() -> None:
    program = (
        'from tests.simulation.failure import SimulationError\n'
        'raise SimulationError(3, 41, "somebody waits beside an idle connection")'
    )
    verdict = watch(program)
    assert (verdict.fault, verdict.place) == ('rule', '3: 41')
    assert verdict.text == 'somebody waits beside an idle connection'


def test_an_error_counts() -> None:
    verdict = watch('raise KeyError("the simulator itself stumbled")')
    assert (verdict.fault, verdict.place) == ('error', '')
    assert 'stumbled' in verdict.text


@pytest.mark.skipif(sys.platform == 'win32', reason='a process that crashes has no signal there')
def test_a_crash_counts() -> None:
    assert watch('import os; os.abort()').fault == 'crash, SIGABRT'


def test_a_hang_counts_and_is_ended() -> None:
    verdict = watch('import threading; threading.Event().wait()', limit=0.5)
    assert verdict.fault == 'hang'


# -- together ---------------------------------------------------------------------------------------------------------


def test_a_change_that_changes_nothing_is_reported_as_missed(capfd: pytest.CaptureFixture[str]) -> None:
    assert mutants.run([EQUIVALENT], SEED, STEPS, 2) == 1
    out = capfd.readouterr().out
    assert 'these were missed:\n  equivalent by asyncio: none\n  equivalent by threads: none\n' in out


def test_a_change_that_cannot_be_made_keeps_no_other_from_being_judged(capfd: pytest.CaptureFixture[str]) -> None:
    broken = WrongChange('broken', ('threads',), EQUIVALENT.old, 'before it ends.\nIDLE_TIME = 1 / 0', 'none')
    assert mutants.run([broken, EQUIVALENT], SEED, STEPS, 2) == 2
    out = capfd.readouterr().out
    assert 'these cannot be made: broken\nthese were missed:\n  equivalent by asyncio: none\n' in out


def test_a_change_that_is_found_is_reported_with_the_step(capfd: pytest.CaptureFixture[str]) -> None:
    assert mutants.run([by_name('endpoint-cap-not-passed-on')], SEED, 50 * STEPS, 2) == 0
    out = capfd.readouterr().out
    assert 'all of them were found' in out
    assert 'rule' in out


def test_a_fault_that_is_found_without_any_change_makes_the_result_void(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutants, 'simulate', lambda *_: Verdict('rule', '1: 7', 0.1, 'always'))
    assert mutants.run([by_name('collector-deaf')], SEED, STEPS, 1) == 2
    assert 'The unchanged sources do not pass' in capfd.readouterr().out


def test_a_name_that_no_change_has_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match='2'):
        mutants.main(['no-such-change'])
    assert 'no such changes: no-such-change' in capfd.readouterr().err
