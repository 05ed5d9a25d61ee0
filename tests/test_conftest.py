"""What makes a run fail in which every test passed, and what a free-threaded one goes without."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from tests import conftest

SKIPPED = {'test_a': 'Skipped: MariaDB is not installed', 'test_b': 'Skipped: processes do not fork there'}


@pytest.mark.parametrize(
    ('forbid', 'allowed', 'faults'),
    [
        (False, [], []),
        (True, [], ['test_a', 'test_b']),
        (True, ['(MariaDB|Redis) is not installed'], ['test_b']),
        (True, ['MariaDB', 'do not fork'], []),
        (True, ['test_'], ['test_a', 'test_b']),
    ],
)
def test_a_skip_is_a_fault_where_they_are_forbidden_unless_its_reason_is_allowed(
    monkeypatch: pytest.MonkeyPatch, forbid: bool, allowed: list[str], faults: list[str]
) -> None:
    monkeypatch.setattr(conftest, 'FREE_THREADED', False)
    monkeypatch.setattr(conftest, 'FORBID_SKIPS', forbid)
    monkeypatch.setattr(conftest, 'ALLOW_SKIPS', allowed)
    monkeypatch.setattr(conftest, 'skipped', SKIPPED)
    assert conftest.faults() == [f'skipped: {name}: {SKIPPED[name]}' for name in faults]


@pytest.mark.parametrize(
    ('reason', 'allowed'),
    [
        ("could not import 'psycopg2': No module named 'psycopg2'", True),
        ("could not import 'gcpool.contrib.psycopg2': install gcpool[psycopg2]", True),
        ("could not import 'loud': import of loud halted; None in sys.modules", True),
        ('not installed: flask, gevent', True),
        ('loud is not installed', True),
        ("could not import 'psycopg': No module named 'psycopg'", False),
        ('not installed: flask', False),
        ('processes do not fork there', False),
    ],
)
@pytest.mark.parametrize('free_threaded', [True, False])
def test_a_free_threaded_run_may_skip_what_needs_a_module_that_it_goes_without(
    monkeypatch: pytest.MonkeyPatch, free_threaded: bool, reason: str, allowed: bool
) -> None:
    monkeypatch.setattr(conftest, 'FREE_THREADED', free_threaded)
    monkeypatch.setattr(conftest, 'FORBID_SKIPS', True)
    monkeypatch.setattr(conftest, 'ALLOW_SKIPS', [])
    monkeypatch.setattr(conftest, 'gone_without', ['loud'])
    assert conftest.may_be_skipped(reason) is (free_threaded and allowed)


def test_modules_that_switch_the_gil_on_are_found_and_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, on in [('loud', True), ('quiet', False)]:
        (tmp_path / f'{name}.py').write_text(f'import sys\nsys._is_gil_enabled = lambda: {on}\n', encoding='utf-8')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setattr(conftest, 'OPTIONAL', ['quiet', 'absent', 'loud'])
    monkeypatch.setattr(conftest, 'gone_without', [])
    # Set first, so that what is put there is taken away again.
    monkeypatch.setenv('GCPOOL_GO_WITHOUT', '')
    del os.environ['GCPOOL_GO_WITHOUT']
    monkeypatch.setitem(sys.modules, 'loud', sys)
    del sys.modules['loud']
    conftest.go_without_those_that_switch_the_gil_on()
    assert conftest.gone_without == ['loud']
    with pytest.raises(ImportError, match='halted'):
        import loud  # type: ignore[import-not-found] # noqa: F401


def test_the_extensions_that_are_loaded_are_known_by_their_packages() -> None:
    importlib.import_module('gcpool._core')
    assert 'gcpool' in conftest.loaded_extensions()
    assert 'pytest' not in conftest.loaded_extensions()
