"""``python -m gcpool top`` and ``holders``: what they print where no terminal is, and how they say what is wrong."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gcpool.__main__ as cli
import gcpool._monitor.client as client_module
from gcpool import monitor
from gcpool._monitor.client import find
from gcpool._monitor.transport import MAX_UNIX_PATH
from gcpool.exceptions import BaseError, MonitorError
from gcpool.threading import ConnectionPool
from tests.monitor.conftest import needs_unix_sockets
from tests.monitor.looks import pool as pool_in_a_look
from tests.monitor.looks import snapshot as look
from tests.monitor.support import Manager
from tests.support import PATIENCE, program_environment

pytestmark = needs_unix_sockets


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Something that is no pool, at a socket."""

    def serve() -> None:
        with listener.accept()[0] as conn:
            answer(conn)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield str(path)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails. Returns what it says."""
    assert cli.main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ''
    return said.err


class TestTop:
    def test_piped_it_is_one_look_with_rates(
        self, directory: Path, pool: ConnectionPool[object, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with monitor.serve(), pool.connection('db'):
            assert cli.main(['top', '--interval', '0.1']) == 0
        text = capsys.readouterr().out
        assert f'process {os.getpid()}' in text
        assert re.search(r'orders .* ok +1/8 +0 +0 +0 +0 ', text), text
        assert '\x1b' not in text

    def test_as_often_as_it_is_told(
        self, directory: Path, pool: ConnectionPool[object, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with monitor.serve():
            assert cli.main(['top', str(os.getpid()), '--interval', '0.1', '--count', '3']) == 0
        assert capsys.readouterr().out.count('busiest endpoints') == 3

    def test_json(
        self, directory: Path, pool: ConnectionPool[object, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with monitor.serve() as server, pool.connection('db'):
            assert cli.main(['top', server.path, '--json', '--count', '2', '--interval', '0.1']) == 0
        first, second = map(json.loads, capsys.readouterr().out.splitlines())
        assert second['monotonic'] > first['monotonic']
        (found,) = [found for found in first['pools'] if found['name'] == 'orders']
        assert found['stats']['in_use'] == 1

    def test_the_process_ends_meanwhile(
        self,
        directory: Path,
        pool: ConnectionPool[object, object],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        looks = 0

        def ask(path: str) -> dict[str, Any]:
            nonlocal looks
            looks += 1
            if looks == 3:
                server.close()
            return client_module.ask(path)

        monkeypatch.setattr('gcpool._monitor.commands.ask', ask)
        with monitor.serve() as server:
            assert cli.main(['top', '--json', '--interval', '0.1', '--count', '9']) == 1
        said = capsys.readouterr()
        assert len(said.out.splitlines()) == 2
        assert (
            said.err == f'Process {os.getpid()} does not serve its pools any more: there is no socket {server.path!r}\n'
        )

    def test_on_a_terminal_until_ctrl_c(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        controller, terminal = pty.openpty()
        with monitor.serve() as server:
            process = subprocess.Popen(
                [sys.executable, '-W', 'error', '-m', 'gcpool', 'top', server.path, '--interval', '0.1'],
                env={**program_environment(), 'TERM': 'xterm-256color', 'COLUMNS': '100', 'LINES': '30'},
                stdin=terminal,
                stdout=terminal,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            os.close(terminal)
            try:
                said = b''
                deadline = time.monotonic() + PATIENCE
                while said.count(b'orders') < 3 and time.monotonic() < deadline:
                    if select.select([controller], [], [], PATIENCE)[0]:
                        said += os.read(controller, 65536)
                process.send_signal(signal.SIGINT)
                deadline = time.monotonic() + PATIENCE
                while process.poll() is None and time.monotonic() < deadline:
                    if select.select([controller], [], [], 0.05)[0]:
                        try:
                            said += os.read(controller, 65536)
                        except OSError:
                            break
                assert process.wait(PATIENCE) == 0
                assert process.stderr is not None
                assert process.stderr.read() == b''
            finally:
                process.kill()
                process.wait(PATIENCE)
                os.close(controller)
                assert process.stderr is not None
                process.stderr.close()
        assert said.count(b'orders') >= 3
        # The screen is the one that was there before.
        assert b'\x1b[?1049h' in said
        assert b'\x1b[?1049l' in said

    def test_who_reads_it_has_seen_enough(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        with monitor.serve() as server:
            process = subprocess.Popen(
                [
                    *(sys.executable, '-W', 'error', '-m', 'gcpool', 'top', server.path),
                    *('--json', '--count', '1000000', '--interval', '0.1'),
                ],
                env=program_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                assert json.loads(process.stdout.readline())['pid'] == os.getpid()
                process.stdout.close()
                assert process.wait(PATIENCE) == 0
                assert process.stderr.read() == b''
            finally:
                process.kill()
                process.wait(PATIENCE)
                process.stderr.close()


class TestHolders:
    def test_where_they_were_acquired(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with (
            ConnectionPool(Manager(), name='held', record_holders=True) as pool,
            pool.connection('db'),
            monitor.serve(),
        ):
            assert cli.main(['holders']) == 0
            text = capsys.readouterr().out
            assert cli.main(['holders', '--json']) == 0
            (holder,) = json.loads(capsys.readouterr().out)
        assert "has a connection of pool 'held' to db" in text
        assert re.search(r'test_commands\.py:\d+ in (TestHolders\.)?test_where_they_were_acquired', text)
        assert (holder['pool'], holder['endpoint']) == ('held', 'db')
        assert holder['frames'][0][2].endswith('test_where_they_were_acquired')


class TestErrors:
    def test_no_process_serves(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = fails(capsys, 'top')
        assert said.startswith('No process of this user serves its pools: expected one with GCPOOL_MONITOR=1')

    def test_several_processes_serve(
        self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monitor.serve() as server:
            other = Path(server.path).with_name('1.sock')
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(other))
                listener.listen()
                said = fails(capsys, 'top')
        assert said == f'Several processes serve their pools: give one of 1, {os.getpid()}\n'

    def test_one_that_was_left_behind_does_not_count(self, directory: Path) -> None:
        with monitor.serve() as server:
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(Path(server.path).with_name('1.sock')))
            assert find(None) == server.path

    def test_a_process_that_does_not_serve(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = fails(capsys, 'top', str(os.getpid()))
        assert said.startswith(f'Process {os.getpid()} does not serve its pools at')
        assert 'GCPOOL_MONITOR=1' in said

    def test_no_process(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        process = subprocess.Popen([sys.executable, '-c', ''])
        process.wait(PATIENCE)
        assert fails(capsys, 'holders', str(process.pid)) == f'There is no process {process.pid}\n'

    def test_a_number_that_no_process_can_have(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert fails(capsys, 'top', '9' * 30) == f'There is no process {"9" * 30}\n'

    def test_the_process_of_another_user(
        self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(pid: int, number: int) -> None:
            assert number == 0
            raise PermissionError

        monkeypatch.setattr(os, 'kill', refuse)
        monkeypatch.setattr(os, 'geteuid', lambda: 12345)
        said = fails(capsys, 'top', '1')
        assert re.fullmatch(
            r'Process 1 belongs to (the user .*|another user): only that user and root can watch its pools\n', said
        )

    @pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='only root can be another user')
    def test_root_watches_the_process_of_another_user(
        self, directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        directory.chmod(0o777)
        program = (
            'import os, sys, socket\n'
            'os.mkdir(sys.argv[1], 0o700)\n'
            'with socket.socket(socket.AF_UNIX) as listener:\n'
            '    listener.bind(f"{sys.argv[1]}/{os.getpid()}.sock")\n'
            '    listener.listen()\n'
            '    print(flush=True)\n'
            '    with listener.accept()[0] as conn:\n'
            f'        conn.sendall({json.dumps(look(pool_in_a_look())).encode()!r})\n'
        )
        process = subprocess.Popen(
            ['/usr/bin/env', 'python3', '-c', program, str(directory / 'gcpool-65534')],
            stdout=subprocess.PIPE,
            user=65534,
            cwd='/',
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b'\n'
            assert cli.main(['top', str(process.pid), '--json']) == 0
            assert json.loads(capsys.readouterr().out)['pools'][0]['name'] == 'orders'
        finally:
            process.kill()
            process.wait(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()

    def test_a_stale_socket(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = str(directory / 'stale')
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
        said = fails(capsys, 'top', path)
        assert said == f'No process serves at {path!r}: the one that did has ended without removing the file\n'

    def test_no_socket(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = str(directory / 'file')
        assert fails(capsys, 'top', path) == f'There is no socket {path!r}\n'
        Path(path).touch()
        assert fails(capsys, 'top', path) == f'{path!r} is not a socket\n'

    def test_a_path_that_is_too_long(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = str(directory / ('x' * MAX_UNIX_PATH))
        said = fails(capsys, 'top', path)
        assert said.startswith(f'The path of the socket has {len(path)} bytes: expected at most {MAX_UNIX_PATH}')

    @pytest.mark.parametrize(
        ('answer', 'message'),
        [
            (b'', 'has hung up without an answer'),
            (b'HTTP/1.1 400 Bad Request\r\n', 'is not a pool'),
            (b'[1, 2]', 'is not a pool'),
            (b'{"version": 1', 'is not a pool'),
            (b'\xff\xfe', 'is not a pool'),
            (b'{"version": 99, "gcpool": "9.0"}', 'has gcpool 9.0, whose snapshots'),
            (b'{"error": "no memory"}', 'no memory'),
        ],
    )
    def test_what_is_no_snapshot(
        self, directory: Path, answer: bytes, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with answering(directory / 's', lambda conn: conn.sendall(answer)) as path:
            said = fails(capsys, 'top', path)
        assert message in said

    def test_a_process_that_does_not_answer(
        self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done = threading.Event()
        monkeypatch.setattr(client_module, 'PATIENCE', 0.05)
        with answering(directory / 's', lambda conn: done.wait(PATIENCE)) as path:
            said = fails(capsys, 'top', path)
            done.set()
        assert 'did not answer within 0.05 s' in said

    def test_a_process_that_is_stopped(
        self, directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_module, 'PATIENCE', 0.05)
        waiting: list[socket.socket] = []
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / 's'))
            listener.listen(0)
            while True:
                conn = socket.socket(socket.AF_UNIX)
                waiting.append(conn)
                conn.setblocking(False)
                if conn.connect_ex(str(directory / 's')):
                    break
            said = fails(capsys, 'top', str(directory / 's'))
            for conn in waiting:
                conn.close()
        assert 'does not answer: it is stopped' in said

    @pytest.mark.parametrize(
        'arguments',
        [['top', '--interval', '0'], ['top', '--count', '0'], ['top', 'a', 'b'], ['plot'], ['holders', '-x']],
    )
    def test_wrong_options(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
        assert 'usage: python -m gcpool' in capsys.readouterr().err

    @pytest.mark.parametrize(
        ('command', 'module', 'extra'),
        [(['top'], 'rich', 'monitor'), (['holders'], 'rich', 'monitor'), (['plot', 'x'], 'matplotlib', 'plot')],
    )
    def test_a_package_that_is_missing(
        self, command: list[str], module: str, extra: str, directory: Path, pool: ConnectionPool[object, object]
    ) -> None:
        with monitor.serve():
            program = (
                f'import runpy, sys\nsys.modules[{module!r}] = None\nrunpy.run_module("gcpool", run_name="__main__")'
            )
            result = subprocess.run(
                [sys.executable, '-c', program, *command],
                env=program_environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        assert (result.returncode, result.stdout) == (2, '')
        name = command[0]
        assert result.stderr == (
            f'python -m gcpool {name} needs {module}, which is not installed: pip install gcpool[{extra}]\n'
        )

    def test_json_needs_no_package(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        program = (
            'import runpy, sys\nsys.modules["rich"] = None\nsys.argv[1:] = ["top", "--json"]\n'
            'runpy.run_module("gcpool", run_name="__main__")'
        )
        with monitor.serve():
            result = subprocess.run(
                [sys.executable, '-W', 'error', '-c', program],
                env=program_environment(),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        assert (result.returncode, result.stderr) == (0, '')
        assert json.loads(result.stdout)['pid'] == os.getpid()


def test_it_is_an_error_of_the_package() -> None:
    assert issubclass(MonitorError, BaseError)
