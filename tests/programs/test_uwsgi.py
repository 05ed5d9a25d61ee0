"""Real uWSGI, which forks its workers in C: it tells Python of that, and lets its threads run, only when it is told to.

The pool is used before. Each worker has connections of its own, or one gets the answer to what another one has asked.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import final

import pytest

from tests.support import PATIENCE, program_environment

UWSGI = shutil.which('uwsgi', path=str(Path(sys.executable).parent))
APPLICATION = Path(__file__).with_name('uwsgi_app.py')

pytestmark = pytest.mark.skipif(UWSGI is None, reason='not installed: uwsgi')


@final
class NumberServer:
    """Answers each line with the number of the connection, counted from 1, and what was asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._conns: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> 'NumberServer':
        self._acceptor.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for conn in self._conns:
            conn.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            self._conns.append(conn)
            self._threads.append(threading.Thread(target=self._serve, args=(conn, len(self._conns)), daemon=True))
            self._threads[-1].start()

    def _serve(self, conn: socket.socket, number: int) -> None:
        with conn, conn.makefile('rb') as lines:
            for line in lines:
                conn.sendall(b'%d %s' % (number, line))


@pytest.fixture
def server() -> Iterator[NumberServer]:
    with NumberServer() as server:
        yield server


@final
class Uwsgi:
    """uWSGI with two workers.

    :param options: its options, besides those that it needs
    :param settings: environment variables of its own
    """

    def __init__(self, options: list[str], **settings: str) -> None:
        assert UWSGI is not None
        self._process = subprocess.Popen(
            [
                *(UWSGI, '--http-socket', '127.0.0.1:0', '--master', '--processes', '2', '--need-app'),
                *('--home', sys.prefix, '--wsgi-file', str(APPLICATION), *options),
            ],
            env={**program_environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._news = threading.Condition()
        self._ended = False

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.said.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def __enter__(self) -> 'Uwsgi':
        self._listener.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def address(self) -> str:
        """Where it serves, once it does."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while 'spawned uWSGI worker 2' not in ''.join(self.said) and not self._ended:
                assert self._news.wait(deadline - time.monotonic()), ''.join(self.said)
        found = re.search(r'bound to TCP address (127\.0\.0\.1:\d+)', ''.join(self.said))
        assert found is not None, ''.join(self.said)
        return found[1]


OPTIONS = [[], ['--enable-threads'], ['--lazy-apps'], ['--lazy-apps', '--enable-threads']]
# From Python 3.13 on no worker of uWSGI 2.0.31 survives this, whatever the application. ``test_fork.py`` has the like.
if sys.version_info < (3, 13):
    OPTIONS += [['--py-call-osafterfork'], ['--enable-threads', '--py-call-osafterfork']]


@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: ' '.join(options) or 'default')
@pytest.mark.parametrize('runtime', ['threads', 'asyncio'])
def test_the_workers_of_uwsgi_share_no_connection(runtime: str, options: list[str], server: NumberServer) -> None:
    numbers: defaultdict[int, set[int]] = defaultdict(set)

    def ask(number: int) -> None:
        with urllib.request.urlopen(f'http://{address}/?q{number}', timeout=PATIENCE) as response:
            said = json.load(response)
        connection, question = said['answer'].split()
        assert question == f'q{number}'
        numbers[said['pid']].add(int(connection))

    settings = {'GCPOOL_TEST_PORT': str(server.port), 'GCPOOL_TEST_RUNTIME': runtime}
    with Uwsgi(options, **settings) as uwsgi, ThreadPoolExecutor(4) as clients:
        address = uwsgi.address()
        deadline = time.monotonic() + PATIENCE
        asked = 0
        # Whoever is free takes a request: until both workers did.
        while asked < 40 or len(numbers) < 2:
            assert time.monotonic() < deadline, f'one worker has taken all: {numbers}'
            list(clients.map(ask, range(asked, asked + 8)))
            asked += 8
    one, other = numbers.values()
    assert one.isdisjoint(other), numbers
    if '--lazy-apps' not in options:
        assert 1 not in one | other, 'that is the connection of the process that forked them'
