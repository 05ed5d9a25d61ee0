"""A directory for temporary files of the test's own, whose path is short enough for Unix sockets."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gcpool.threading import ConnectionPool
from tests.monitor.support import Manager

needs_unix_sockets = pytest.mark.skipif(
    not hasattr(socket, 'AF_UNIX') or sys.platform == 'win32', reason='pools are served at no Unix socket there'
)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What this process and the programs that it starts take for the directory of temporary files."""
    found = Path(tempfile.mkdtemp(prefix='gcpool-', dir='/tmp' if os.path.isdir('/tmp') else None))
    monkeypatch.setattr('tempfile.tempdir', str(found))
    for name in ('TMPDIR', 'TEMP', 'TMP', 'LOCALAPPDATA'):
        monkeypatch.setenv(name, str(found))
    yield found
    shutil.rmtree(found)


@pytest.fixture
def pool() -> Iterator[ConnectionPool[object, object]]:
    """A pool with a connection to ``'db'``, which is idle."""
    with ConnectionPool(Manager(), name='orders', max_size=4, total_max_size=8) as pool:
        pool.release(pool.acquire('db'))
        yield pool
