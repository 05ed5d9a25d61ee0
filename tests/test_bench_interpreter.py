"""Which interpreter the benchmarks choose."""

import argparse
import subprocess
import sys

import pytest

from bench import interpreter
from bench.interpreter import Interpreter


def an_interpreter(
    *version: int, final: bool = True, free_threaded: bool = False, optimised: bool = False
) -> Interpreter:
    name = '.'.join(map(str, version))
    return Interpreter(f'/{name}', version, final, free_threaded, optimised)  # type: ignore[arg-type]


@pytest.fixture
def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    interpreter.add_arguments(parser)
    parser.set_defaults(list=False)
    return parser.parse_args([])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run; all of it ends well."""
    found: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        found.append([str(argument) for argument in command])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(interpreter, 'ask', lambda path: an_interpreter(3, 13, 1 if path == sys.executable else 0))
    monkeypatch.setattr(subprocess, 'run', run)
    return found


def test_the_newest_is_a_final_one_with_the_gil() -> None:
    found = [
        an_interpreter(3, 15, 0, final=False),
        an_interpreter(3, 14, 7),
        an_interpreter(3, 14, 9, free_threaded=True),
        an_interpreter(3, 9, 20),
    ]
    assert interpreter.newest(found) == found[1]
    assert interpreter.newest([]) is None


def test_of_two_of_one_version_the_optimised_one_is_chosen() -> None:
    found = [an_interpreter(3, 14, 7), an_interpreter(3, 14, 7, optimised=True), an_interpreter(3, 14, 7)]
    assert interpreter.newest(found) is found[1]


def test_this_interpreter_is_among_those_that_answer() -> None:
    here = interpreter.ask(sys.executable)
    assert here is not None
    assert here.version == sys.version_info[:3]
    assert interpreter.describe().startswith(str(here))
    assert interpreter.ask('/no/such/python') is None


def test_a_newer_one_gets_an_environment_and_runs_the_benchmark(
    options: argparse.Namespace, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, 'interpreters', lambda: [an_interpreter(3, 14, 7), an_interpreter(3, 13, 9)])
    assert interpreter.run_elsewhere(options, 'bench', ['--quick']) == 0
    make, run = commands
    assert make[0] == 'make'
    assert {'bench-environment', 'PYTHON=/3.14.7', 'VENV=.venv-bench-3.14.7'} <= {*make}
    assert run[1:] == ['-m', 'bench', '--quick', '--here']


@pytest.mark.parametrize('others', [[], [(3, 12, 9)], [(3, 13, 1)]])
def test_it_runs_here_where_no_other_is_newer(
    options: argparse.Namespace,
    commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    others: list[tuple[int, int, int]],
) -> None:
    monkeypatch.setattr(interpreter, 'interpreters', lambda: [an_interpreter(*version) for version in others])
    assert interpreter.run_elsewhere(options, 'bench', []) is None
    assert commands == []


@pytest.mark.parametrize('written', [['--python', '/3.13.0'], ['--python=/3.13.0']])
def test_one_that_was_asked_for_is_taken_be_it_older(
    options: argparse.Namespace, commands: list[list[str]], written: list[str]
) -> None:
    options.python = '/3.13.0'
    assert interpreter.run_elsewhere(options, 'bench', ['-k', 'cycle', *written]) == 0
    assert commands[-1][1:] == ['-m', 'bench', '-k', 'cycle', '--here']


def test_one_that_does_not_answer_is_refused(options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    options.python = '/no/such/python'
    with pytest.raises(SystemExit, match='no Python answers there'):
        interpreter.run_elsewhere(options, 'bench', [])
