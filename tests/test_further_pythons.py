"""Which further Pythons the tests are run on: .github/scripts/further_pythons.py."""

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import FREE_THREADED

SCRIPT = Path(__file__).resolve().parents[1] / '.github' / 'scripts' / 'further_pythons.py'
OWN = f'3.{sys.version_info.minor}{"t" * FREE_THREADED}'


@pytest.fixture(name='script', scope='module')
def fixture_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location('further_pythons', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(script: ModuleType, version: str, program: str = 'python') -> Any:
    return script.Python(int(version.removesuffix('t').removeprefix('3.')), version.endswith('t'), Path(program))


@pytest.mark.parametrize(
    ('there', 'own', 'chosen'),
    [
        ('', '3.11', ''),
        ('3.11', '3.11', ''),
        ('3.10 3.11', '3.11', '3.10'),
        ('3.10 3.11 3.12', '3.11', '3.12 3.10'),
        ('3.9 3.11 3.13 3.14', '3.11', '3.14 3.9'),
        ('3.10 3.11 3.14 3.14t', '3.11', '3.14 3.14t 3.10'),
        ('3.10 3.13t 3.14 3.14t 3.15', '3.13', '3.15 3.14t 3.10'),
        ('3.10 3.14 3.14t 3.15 3.15t', '3.15', '3.14 3.15t 3.10'),
        ('3.14 3.14t', '3.14', '3.14t'),
        ('3.14 3.14t', '3.14t', '3.14'),
        ('3.14t', '3.11', '3.14t'),
    ],
)
def test_the_newest_the_newest_free_threaded_and_the_oldest(
    script: ModuleType, there: str, own: str, chosen: str
) -> None:
    found = [python(script, version) for version in there.split()]
    assert [each.version for each in script.choose(found, own)] == chosen.split()


def test_the_first_of_each_version_is_found_in_order_of_the_versions(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions = {
        'a/python3': '3.12',
        'a/python3.9': None,
        'b/python3.10': '3.10',
        'b/python3.12': '3.12',
        'c/python3': '3.14t',
        'd/python3': '3.14',
        'd/python3.14': '3.14',
    }
    for name in [*versions, 'b/python3-config', 'b/python3.12-gdb.py', 'b/python']:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def ask(program: Path) -> Any:
        version = versions[program.relative_to(tmp_path).as_posix()]
        return version and python(script, version, str(program))

    monkeypatch.setattr(script, 'ask', ask)
    found = script.find([tmp_path / name for name in ('absent', 'a', 'b', 'a', 'c', 'd')])
    assert [(each.version, each.program.relative_to(tmp_path).as_posix()) for each in found] == [
        ('3.10', 'b/python3.10'),
        ('3.12', 'a/python3'),
        ('3.14', 'd/python3'),
        ('3.14t', 'c/python3'),
    ]


def test_an_interpreter_is_asked_what_it_is(script: ModuleType, tmp_path: Path) -> None:
    asked = script.ask(Path(sys.executable))
    if (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        assert (asked.version, asked.program) == (OWN, Path(sys.executable))
    else:
        assert asked is None
    assert script.ask(tmp_path / 'absent') is None
    broken = tmp_path / 'broken'
    broken.write_text('#!/nowhere/python\n', encoding='utf-8')
    os.chmod(broken, 0o755)
    assert script.ask(broken) is None
