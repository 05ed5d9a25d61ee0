"""SQLAlchemy's own tests of its pools, with gcpool's in their place.

They come with the sdist of the version that is installed, which is fetched once, into ``build/``.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import FREE_THREADED
from tests.pages import ROOT
from tests.support import program_environment

sa = pytest.importorskip('sqlalchemy')
pytest.importorskip('greenlet')

# Seconds that one run may take, or a try to fetch the sdist. Most of the tests sleep.
LIMIT = 100

pytestmark = pytest.mark.timeout(4 * LIMIT)

POOL_TESTS = 'test/engine/test_pool.py'
# They assign to the deque inside of SQLAlchemy's own queue.
OF_THE_QUEUE = (
    f'{POOL_TESTS}::QueuePoolTest::test_connect_handler_not_called_for_recycled',
    f'{POOL_TESTS}::QueuePoolTest::test_connect_checkout_handler_always_gets_info',
)
# The tests that sleep for most of the time are run beside the others.
SLEEPERS = 'QueuePoolTest and (timeout or race or hanging or notify or waiters)'


def sources() -> Path:
    """The unpacked sdist of the SQLAlchemy that is installed."""
    unpacked = ROOT / 'build' / f'sqlalchemy-{sa.__version__}'
    if not unpacked.is_dir():
        unpacked.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=unpacked.parent) as directory:
            fetch(Path(directory))
            try:
                next(path for path in Path(directory).iterdir() if path.is_dir()).rename(unpacked)
            except OSError:
                # Another process of the tests has been faster.
                assert unpacked.is_dir()
    return unpacked


def fetch(directory: Path) -> None:
    """Get the sdist from the package index, and unpack it."""
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'download', '--quiet', '--no-deps']
    command += ['--no-binary', 'sqlalchemy', '--dest', str(directory), f'sqlalchemy=={sa.__version__}']
    # pip looks into the sdist by what that is built with. Usually it is here: then pip need not get it.
    failure = ''
    for option in (['--no-build-isolation'], []):
        result = subprocess.run([*command, *option], capture_output=True, text=True, timeout=LIMIT, check=False)
        failure = result.stderr
        if result.returncode == 0:
            break
    else:
        pytest.skip(f'the sdist of SQLAlchemy {sa.__version__} cannot be fetched: {failure[-300:]}')
    (archive,) = directory.glob('*.tar.gz')
    # Python 3.14 does so by default, and before 3.12 not each release can.
    safely: dict[str, Any] = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}
    with tarfile.open(archive) as packed:
        packed.extractall(directory, **safely)


class OwnTests:
    """A run of some of SQLAlchemy's tests, which begins at once.

    :param directory: where it runs, and writes
    :param arguments: for pytest
    :param database: which it uses
    """

    def __init__(self, directory: Path, *arguments: str, database: str = 'sqlite:///:memory:') -> None:
        origin = sources()
        directory.mkdir()
        # It describes the databases, and is looked for there.
        shutil.copy(origin / 'setup.cfg', directory)
        self._report = directory / 'report.xml'
        self._output = directory / 'output'
        environment = {name: value for name, value in program_environment().items() if not name.startswith('PYTEST_')}
        # None of those that are installed is needed, and they take longer to start than most tests.
        environment['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'
        command = [sys.executable, '-m', 'pytest', '-p', 'tests.contrib.sqlalchemy_plugin', '-p', 'no:cacheprovider']
        with self._output.open('w') as output:
            self._process = subprocess.Popen(
                [
                    *command,
                    *('--quiet', f'--rootdir={origin}', f'--config-file={origin / "pyproject.toml"}'),
                    *(f'--junitxml={self._report}', f'--dburi={database}'),
                    *(str(origin / argument) if argument.startswith('test/') else argument for argument in arguments),
                ],
                cwd=directory,
                env={**environment, 'PYTHONPATH': os.pathsep.join([str(ROOT), environment['PYTHONPATH']])},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def passed(self) -> int:
        """Wait until it has ended; how many tests have passed. Fails if one has failed."""
        try:
            self._process.wait(LIMIT)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, self._output.read_text()[-5000:]
        suite = ET.parse(self._report).getroot()[0]
        assert (suite.get('errors'), suite.get('failures')) == ('0', '0')
        return int(suite.get('tests', '0')) - int(suite.get('skipped', '0'))


def test_of_queue_pool(tmp_path: Path) -> None:
    without = [f'--deselect={name}' for name in OF_THE_QUEUE]
    runs = [
        OwnTests(tmp_path / 'sleepers', POOL_TESTS, '-k', SLEEPERS),
        OwnTests(tmp_path / 'others', POOL_TESTS, '-k', f'not ({SLEEPERS})', *without),
    ]
    # 149 of the 151 of SQLAlchemy 2.1, 148 of the 150 of 2.0. Free-threaded, it leaves out those of garbage collection.
    assert sum(run.passed() for run in runs) >= (145 if FREE_THREADED else 148)


def test_of_asyncio_engines(tmp_path: Path) -> None:
    pytest.importorskip('aiosqlite')
    run = OwnTests(
        tmp_path / 'engines',
        'test/ext/asyncio/test_engine.py',
        # Each is cancelled wherever it awaits, once after the other. SQLAlchemy 2.0 has no such tests.
        *(['test/ext/asyncio/test_cancellation.py'] if sa.__version__ >= '2.1' else []),
        '-k',
        'test_engine or connection and not event or gc or warm',
        database='sqlite+aiosqlite:///tests.db',
    )
    assert run.passed() >= 140
