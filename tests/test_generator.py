"""The generator of the threading half: .github/scripts/generate_threading.py."""

import importlib.util
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / '.github' / 'scripts' / 'generate_threading.py'

FACADE = """\
import asyncio

from gcpool._runtime_asyncio import AsyncRuntime

__all__ = ['AsyncPool']


class AsyncPool(AsyncRuntime):
    \"\"\"See :py:class:`gcpool.asyncio`.\"\"\"

    async def __aenter__(self) -> 'AsyncPool':
        # The connection is ours until it is given back.
        return await self.open(await self.lock())
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location('generate_threading', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name='generator', scope='module')
def fixture_generator() -> ModuleType:
    return load()


@pytest.fixture(name='root')
def fixture_root(tmp_path: Path) -> Path:
    (tmp_path / 'pyproject.toml').write_text("[tool.ruff.format]\nquote-style = 'single'\n")
    for directory in ('src/gcpool', 'tests/pool', 'tests/pool_threads'):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / 'src/gcpool/asyncio.py').write_text(FACADE)
    return tmp_path


def write_test_source(root: Path, name: str = 'test_x.py') -> Path:
    path = root / 'tests/pool' / name
    path.write_text('async def test_x() -> None:\n    await run()\n')
    return path


def test_asynchronous_code_becomes_synchronous(generator: ModuleType, root: Path) -> None:
    assert generator.main(['--root', str(root)]) == 0
    assert (root / 'src/gcpool/threading.py').read_text() == textwrap.dedent(
        '''\
        # Generated from src/gcpool/asyncio.py by .github/scripts/generate_threading.py; do not edit.

        from gcpool._runtime_threads import SyncRuntime

        __all__ = ['SyncPool']


        class SyncPool(SyncRuntime):
            """See :py:class:`gcpool.threading`."""

            def __enter__(self) -> 'SyncPool':
                # The connection is ours until it is given back.
                return self.open(self.lock())
        '''
    )


def test_every_test_module_is_generated_but_for_what_runs_coroutines(generator: ModuleType, root: Path) -> None:
    for name in ('test_x.py', 'support.py', 'conftest.py'):
        write_test_source(root, name)
    generator.write(root)
    assert sorted(path.name for path in (root / 'tests/pool_threads').iterdir()) == ['support.py', 'test_x.py']
    assert 'async' not in (root / 'tests/pool_threads/test_x.py').read_text()


def test_what_was_written_passes_the_check(generator: ModuleType, root: Path) -> None:
    write_test_source(root)
    assert generator.main(['--root', str(root)]) == 0
    assert generator.main(['--root', str(root), '--check']) == 0
    assert generator.write(root) == []


def test_an_edited_target_is_refused_with_a_diff(
    generator: ModuleType, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator.write(root)
    target = root / 'src/gcpool/threading.py'
    target.write_text(target.read_text().replace('self.lock()', 'self.latch()'))
    assert generator.main(['--root', str(root), '--check']) == 1
    output = capsys.readouterr().out
    assert '-        return self.open(self.latch())' in output
    assert '+        return self.open(self.lock())' in output


def test_a_changed_source_is_refused(generator: ModuleType, root: Path) -> None:
    generator.write(root)
    source = root / 'src/gcpool/asyncio.py'
    source.write_text(source.read_text().replace('lock', 'latch'))
    assert len(generator.check(root)) == 1


def test_a_target_that_is_missing_is_refused(generator: ModuleType, root: Path) -> None:
    assert len(generator.check(root)) == 1


@pytest.mark.parametrize('vanished', ['tests/pool/test_x.py', 'src/gcpool/asyncio.py'])
def test_a_target_whose_source_vanished_is_refused_and_then_deleted(
    generator: ModuleType, root: Path, vanished: str
) -> None:
    write_test_source(root)
    generator.write(root)
    (root / vanished).unlink()
    faults = generator.check(root)
    assert len(faults) == 1
    assert 'from nothing that exists' in faults[0]
    assert len(generator.write(root)) == 1
    assert generator.check(root) == []


@pytest.mark.parametrize('text', ['def test_signal(): ...\n', None])
def test_what_is_not_generated_where_all_is_generated_is_refused(
    generator: ModuleType, root: Path, text: str | None
) -> None:
    write_test_source(root)
    generator.write(root)
    generated = (root / 'tests/pool_threads/test_x.py').read_text()
    (root / 'tests/pool_threads/test_own.py').write_text(generated if text is None else text)
    assert [fault.partition(':')[0] for fault in generator.check(root)] == ['tests/pool_threads/test_own.py']


def test_what_is_checked_in_is_what_its_source_generates(generator: ModuleType) -> None:
    assert generator.check(generator.ROOT) == []


def test_a_hand_written_module_of_the_package_is_left_alone(generator: ModuleType, root: Path) -> None:
    (root / 'src/gcpool/managers.py').write_text('class Manager: ...\n')
    generator.write(root)
    assert generator.check(root) == []
    assert (root / 'src/gcpool/managers.py').exists()


@pytest.mark.parametrize(
    'code',
    [
        pytest.param('async def broken(:\n    pass\n', id='syntax'),
        pytest.param("async def f() -> str:\n    return f'{await g()}'\n", id='await in an f-string'),
        pytest.param("print(f'{AsyncPool}')\n", id='name in an f-string'),
    ],
)
def test_code_that_cannot_be_turned_is_refused(generator: ModuleType, root: Path, code: str) -> None:
    (root / 'src/gcpool/asyncio.py').write_text(code)
    assert generator.main(['--root', str(root)]) == 2
    assert not (root / 'src/gcpool/threading.py').exists()
