"""Serving snapshots: at a place that is private, by one thread, and without harm to the process."""

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gcpool._monitor.server as server_module
import gcpool._monitor.transport as transport_module
from gcpool import monitor
from gcpool._monitor.client import ask, find
from gcpool._monitor.transport import MAX_UNIX_PATH, LoopbackTransport, UnixTransport
from gcpool.common import Health
from gcpool.exceptions import MonitorError
from gcpool.threading import ConnectionPool
from tests.monitor.conftest import needs_unix_sockets
from tests.monitor.support import Manager, counts, pool_in, threads_called
from tests.support import PATIENCE, program_environment

pytestmark = needs_unix_sockets


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def read_all(path: str) -> bytes:
    with UnixTransport().connect(path, PATIENCE) as conn:
        return b''.join(iter(lambda: conn.recv(65536), b''))


class TestServe:
    def test_a_client_gets_a_snapshot(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        with monitor.serve() as server, pool.connection('db'):
            snapshot = ask(find(str(os.getpid())))
            assert counts(pool_in(snapshot, 'orders')['stats']) == counts(pool.get_stats())
            assert server.path == find(None) == str(directory / f'gcpool-{os.geteuid()}' / f'{os.getpid()}.sock')

    def test_each_connection_gets_one(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        with monitor.serve() as server:
            first, second = json.loads(read_all(server.path)), json.loads(read_all(server.path))
        assert first['monotonic'] < second['monotonic']

    def test_only_this_user_may_enter(self, directory: Path) -> None:
        with monitor.serve() as server:
            assert mode_of(os.path.dirname(server.path)) == 0o700
            assert mode_of(server.path) == 0o600

    def test_one_daemon_thread_while_it_serves(self, directory: Path) -> None:
        assert threads_called('gcpool-monitor') == []
        with monitor.serve() as server:
            (thread,) = threads_called('gcpool-monitor')
            assert thread.daemon
            assert repr(server).endswith(f"at '{server.path}'>")
        assert threads_called('gcpool-monitor') == []
        assert server.closed
        assert repr(server).endswith(', closed>')
        assert not os.path.exists(server.path)
        server.close()

    def test_what_a_client_sends_is_of_no_consequence(
        self, directory: Path, pool: ConnectionPool[object, object]
    ) -> None:
        before = pool.get_stats()
        with monitor.serve() as server, UnixTransport().connect(server.path, PATIENCE) as conn:
            # The server may have answered and hung up before all of it is sent.
            with contextlib.suppress(OSError):
                conn.sendall(b'{"close": true}\n' * 100)
            assert pool_in(ask(server.path), 'orders')['pools'] == 1
        assert pool.get_stats() == before

    def test_a_client_that_reads_nothing_holds_up_no_other_for_long(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, 'CLIENT_TIME', 0.05)
        monkeypatch.setattr(server_module, '_answer_of_now', lambda: b'x' * (1 << 24))
        with monitor.serve() as server, UnixTransport().connect(server.path, PATIENCE):
            monkeypatch.setattr(server_module, '_answer_of_now', lambda: b'for the second')
            assert read_all(server.path) == b'for the second'

    def test_a_client_that_hangs_up_at_once(self, directory: Path, pool: ConnectionPool[object, object]) -> None:
        with monitor.serve() as server:
            for _ in range(50):
                UnixTransport().connect(server.path, PATIENCE).close()
            assert pool_in(ask(server.path), 'orders')['pools'] == 1

    def test_what_goes_wrong_in_a_look_is_told_without_its_text(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> dict[str, Any]:
            raise RuntimeError('a password')

        monkeypatch.setattr(server_module, 'snapshot_as_json', fail)
        with monitor.serve() as server, pytest.raises(MonitorError, match='could not read its pools: RuntimeError'):
            ask(server.path)

    def test_it_goes_on_whatever_a_pool_raises(self, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Hostile(ConnectionPool[object, object]):
            failure: BaseException = SystemExit(3)

            def health(self) -> Any:
                raise self.failure

        class Nameless:
            def __repr__(self) -> str:
                raise RuntimeError('no text')

        with monitor.serve() as server:
            with Hostile(Manager(), name='hostile') as hostile:
                with pytest.raises(MonitorError, match='could not read its pools: SystemExit'):
                    ask(server.path)
                for Hostile.failure in (KeyboardInterrupt(), GeneratorExit()):
                    name = type(Hostile.failure).__name__
                    with pytest.raises(MonitorError, match=f'could not read its pools: {name}'):
                        ask(server.path)
                Hostile.health = lambda self: Health(Nameless(), None)  # type: ignore[arg-type, method-assign]
                with pytest.raises(MonitorError, match='could not read its pools'):
                    ask(server.path)
                assert not hostile.closed
            # Pools that other tests have left may be there.
            assert 'hostile' not in [pool['name'] for pool in ask(server.path)['pools']]
        assert 'no snapshot of the pools: SystemExit' in caplog.text

    def test_serving_again_at_the_same_place(self, directory: Path) -> None:
        with monitor.serve() as server:
            assert monitor.serve() is server
            assert monitor.serve(Path(server.path)) is server

    def test_serving_at_another_place(self, directory: Path) -> None:
        with monitor.serve() as server:
            with pytest.raises(RuntimeError, match=r'are already served at'):
                monitor.serve(str(directory / 'other' / 'pools.sock'))
            assert ask(server.path)['pid'] == os.getpid()
        with monitor.serve(str(directory / 'other' / 'pools.sock')) as server:
            assert server.path == str(directory / 'other' / 'pools.sock')
            assert ask(find(server.path))['pid'] == os.getpid()

    @pytest.mark.parametrize('path', [5, b'/tmp/x', object()])
    def test_no_path(self, path: Any) -> None:
        with pytest.raises(TypeError, match='expected a string or a path'):
            monitor.serve(path)


class Clock:
    """A clock that goes on by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(transport_module, 'time', self)

    def monotonic(self) -> float:
        return self.now


class SlowSocket:
    """A side of a connection whose other side says one byte each time, after some seconds."""

    def __init__(self, clock: Clock, seconds: float):
        self._clock = clock
        self._seconds = seconds
        self.timeouts: list[float] = []
        self.sent = b''

    def settimeout(self, timeout: float) -> None:
        assert timeout > 0
        self.timeouts.append(timeout)

    def recv(self, size: int) -> bytes:
        if self._seconds > self.timeouts[-1]:
            self._clock.now += self.timeouts[-1]
            raise TimeoutError('timed out')
        self._clock.now += self._seconds
        return b'0'

    def sendall(self, data: bytes) -> None:
        self.sent += data


class TestOneLimit:
    """A conversation has one limit, however it is drawn out."""

    @pytest.mark.parametrize('seconds', [0.1, 0.5, 1.5, 5.0])
    def test_a_client_that_says_a_byte_now_and_then(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
    ) -> None:
        clock = Clock(monkeypatch)
        conn: Any = SlowSocket(clock, seconds)
        listener = LoopbackTransport().listen(None)
        try:
            server_module._converse(conn, listener)
        finally:
            listener.close()
        assert clock.now == pytest.approx(1000.0 + server_module.CLIENT_TIME, abs=seconds)
        assert clock.now <= 1000.0 + server_module.CLIENT_TIME + 1e-6
        assert conn.timeouts == sorted(conn.timeouts, reverse=True)
        assert conn.sent == b''

    def test_the_answer_has_what_the_token_has_left(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        conn: Any = SlowSocket(clock, 0.03125)
        listener = LoopbackTransport().listen(None)

        def slow_look() -> bytes:
            # That is no time of the client's.
            clock.now += 100.0
            return b'answer'

        try:
            monkeypatch.setattr(listener, '_token', '0' * 32)
            monkeypatch.setattr(server_module, '_answer_of_now', slow_look)
            server_module._converse(conn, listener)
        finally:
            listener.close()
        assert conn.sent == b'answer'
        assert conn.timeouts[-1] == server_module.CLIENT_TIME - 32 * 0.03125

    @pytest.mark.parametrize('seconds', [0.5, 2.0, 60.0])
    def test_a_process_that_answers_a_byte_now_and_then(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        clock = Clock(monkeypatch)
        conn: Any = SlowSocket(clock, seconds)

        class Via(UnixTransport):
            def connect(self, path: str, timeout: float) -> Any:
                return contextlib.nullcontext(conn)

        with pytest.raises(MonitorError, match='did not answer within 5 s'):
            ask('/nowhere', Via())
        assert clock.now <= 1000.0 + 5.0 + 1e-6


class TestPlaces:
    def test_a_path_that_is_too_long(self, directory: Path) -> None:
        path = str(directory / 'd' / ('x' * MAX_UNIX_PATH))
        with pytest.raises(ValueError, match=rf'has {len(path)} bytes: expected at most {MAX_UNIX_PATH}'):
            monitor.serve(path)
        assert list(directory.iterdir()) == []
        assert threads_called('gcpool-monitor') == []

    def test_a_path_as_long_as_it_may_be(self, directory: Path) -> None:
        stem = f'{directory}/d/'
        path = stem + 'x' * (MAX_UNIX_PATH - len(stem))
        with monitor.serve(path):
            assert ask(path)['pid'] == os.getpid()

    def test_a_directory_that_others_may_enter(self, directory: Path) -> None:
        (directory / 'open').mkdir(mode=0o755)
        (directory / 'open').chmod(0o755)
        with pytest.raises(PermissionError, match=r"open' belongs to .* mode 0755: expected .* mode 0700"):
            monitor.serve(str(directory / 'open' / 'pools.sock'))
        assert list((directory / 'open').iterdir()) == []

    def test_the_directory_of_another_user(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        user = os.geteuid()
        (directory / f'gcpool-{user + 1}').mkdir(mode=0o700)
        monkeypatch.setattr(os, 'geteuid', lambda: user + 1)
        with pytest.raises(PermissionError, match=rf'belongs to user {user} '):
            monitor.serve()

    def test_a_link_to_a_directory(self, directory: Path) -> None:
        (directory / 'private').mkdir(mode=0o700)
        (directory / 'link').symlink_to(directory / 'private')
        with pytest.raises(NotADirectoryError, match='link'):
            monitor.serve(str(directory / 'link' / 'pools.sock'))

    def test_a_file_that_is_no_socket_stays(self, directory: Path) -> None:
        directory.chmod(0o700)
        (directory / 'notes').write_text('mine')
        with pytest.raises(FileExistsError, match='not a socket'):
            monitor.serve(str(directory / 'notes'))
        assert (directory / 'notes').read_text() == 'mine'

    def test_a_place_where_another_process_serves(self, directory: Path) -> None:
        path = str(directory / 'pools.sock')
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            other.listen()
            with pytest.raises(OSError, match='another process serves there') as caught:
                monitor.serve(path)
        assert caught.value.errno == errno.EADDRINUSE

    def test_a_place_where_a_process_is_stopped_and_its_queue_full(self, directory: Path) -> None:
        path = str(directory / 'pools.sock')
        with socket.socket(socket.AF_UNIX) as other, contextlib.ExitStack() as clients:
            other.bind(path)
            other.listen(1)
            with contextlib.suppress(BlockingIOError):
                for _ in range(16):
                    client = clients.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(path)
            inode = os.stat(path).st_ino
            with pytest.raises(OSError, match='another process serves there') as caught:
                monitor.serve(path)
            assert os.stat(path).st_ino == inode
        assert caught.value.errno == errno.EADDRINUSE

    def test_a_socket_of_another_kind_stays(self, directory: Path) -> None:
        path = str(directory / 'log.sock')
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(path)
            inode = os.stat(path).st_ino
            with pytest.raises(OSError, match='another process serves there'):
                monitor.serve(path)
            assert os.stat(path).st_ino == inode

    def test_a_file_that_has_the_first_name_of_the_socket_stays(self, directory: Path) -> None:
        directory.chmod(0o700)
        (directory / 'note~').write_text('mine')
        with pytest.raises(FileExistsError, match='not a socket'):
            monitor.serve(str(directory / 'notes'))
        assert (directory / 'note~').read_text() == 'mine'

    def test_an_interrupted_close_closes_the_rest(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = monitor.serve()
        end = server._background.end

        def interrupted() -> None:
            end()
            raise KeyboardInterrupt

        monkeypatch.setattr(server._background, 'end', interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.close()
        assert not os.path.exists(server.path)
        assert server._listener.sock.fileno() == -1

    def test_a_signal_handler_may_serve_while_its_thread_does(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = server_module.Server
        calls: list[object] = []

        def interrupted(path: str | None = None) -> Any:
            calls.append(path)
            if len(calls) == 1:
                monitor.serve()
            return make(path)

        monkeypatch.setattr(server_module, 'Server', interrupted)
        with monitor.serve() as server:
            assert len(calls) == 2
            assert monitor.serve() is server
            assert len(threads_called('gcpool-monitor')) == 1
        calls.clear()
        with pytest.raises(RuntimeError, match='close that server'):
            monitor.serve(str(directory / 'd' / 's'))
        assert len(threads_called('gcpool-monitor')) == 1
        monitor.serve().close()

    def test_a_socket_that_was_left_behind_is_replaced(self, directory: Path) -> None:
        path = str(directory / 'pools.sock')
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
        with pytest.raises(MonitorError, match='has ended without removing'):
            ask(path)
        with monitor.serve(path):
            assert ask(path)['pid'] == os.getpid()
        assert [entry.name for entry in directory.iterdir()] == []

    def test_what_was_put_in_its_place_is_not_removed(self, directory: Path) -> None:
        with monitor.serve() as server:
            os.unlink(server.path)
            Path(server.path).write_text('of another process')
        assert Path(server.path).read_text() == 'of another process'

    def test_no_more_files_may_be_opened(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with monitor.serve() as server:
            pauses: list[float] = []
            monkeypatch.setattr(server_module, 'PAUSE', 0.01)
            accept = server._listener.sock

            class Failing:
                def accept(self) -> Any:
                    if len(pauses) < 3:
                        pauses.append(0.01)
                        raise OSError(errno.EMFILE, 'too many open files')
                    return accept.accept()

            monkeypatch.setattr(server._listener, 'sock', Failing())
            assert ask(server.path)['pid'] == os.getpid()
            assert len(pauses) == 3
            monkeypatch.undo()


def run(program: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-W', 'error', *([program] if isinstance(program, Path) else ['-c', program])],
        env={**program_environment(), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


PRELUDE = """
import json, os, sys, threading
from gcpool.threading import ConnectionPool
def build(name):
    return ConnectionPool.from_callables(lambda endpoint: object(), lambda endpoint, conn: None, name=name)
def names(pid=None):
    from gcpool._monitor.client import ask, find
    return [pool['name'] for pool in ask(find(str(pid or os.getpid())))['pools']]
"""


class TestEnvironment:
    def test_the_first_pool_has_the_process_serve(self, directory: Path) -> None:
        program = f"""{PRELUDE}
assert threading.active_count() == 1
with build('first'), build('second'):
    print(names(), threading.active_count())
print(names())
"""
        result = run(program, GCPOOL_MONITOR='1')
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout.splitlines() == ["['first', 'second'] 2", '[]']
        # Nothing is left when the process has ended.
        assert list((directory / f'gcpool-{os.geteuid()}').iterdir()) == []

    @pytest.mark.parametrize('value', ['', '0'])
    def test_switched_off(self, directory: Path, value: str) -> None:
        program = f"""{PRELUDE}
with build('first'):
    print(threading.active_count(), 'gcpool._monitor.server' in sys.modules)
"""
        result = run(program, GCPOOL_MONITOR=value)
        assert (result.stdout, result.stderr) == ('1 False\n', '')

    def test_a_value_that_is_none_is_told_once(self, directory: Path) -> None:
        program = f'{PRELUDE}\nwith build("first"), build("second"):\n    print("built")'
        result = run(program, GCPOOL_MONITOR='yes')
        assert result.stdout == 'built\n'
        assert result.stderr == "GCPOOL_MONITOR='yes': expected 1 or 0; the pools are not served\n"

    def test_a_place_that_is_not_private_does_not_keep_a_pool_from_being_built(self, directory: Path) -> None:
        place = directory / f'gcpool-{os.geteuid()}'
        place.mkdir()
        place.chmod(0o777)
        result = run(f'{PRELUDE}\nwith build("first"), build("second"):\n    print("built")', GCPOOL_MONITOR='1')
        assert result.stdout == 'built\n'
        (line,) = result.stderr.splitlines()
        assert line.startswith('the pools of this process are not served: the directory')
        assert 'mode 0777' in line


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
class TestFork:
    def test_a_child_serves_at_a_place_of_its_own(self, directory: Path) -> None:
        program = f"""{PRELUDE}
pool = build('inherited')
pid = os.fork()
if not pid:
    mine = build('of the child')
    print(names(), flush=True)
    mine.close()
    pool.close()
    # As processes of multiprocessing end: the file stays behind.
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(names(), flush=True)
from gcpool._monitor.client import find
print(find(None) == find(str(os.getpid())))
pool.close()
"""
        result = run(program, GCPOOL_MONITOR='1')
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout.splitlines() == ["['inherited', 'of the child']", "['inherited']", 'True']

    def test_a_child_does_not_serve_at_the_place_that_its_parent_was_given(self, directory: Path) -> None:
        program = f"""{PRELUDE}
from gcpool import monitor
from gcpool._monitor.client import ask
pool = build('inherited')
server = monitor.serve(sys.argv[1])
pid = os.fork()
if not pid:
    assert server.closed and threading.active_count() == 1
    assert ask(sys.argv[1])['pid'] == os.getppid()
    with monitor.serve():
        print(names(), flush=True)
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
assert ask(sys.argv[1])['pid'] == os.getpid()
pool.close()
""".replace('sys.argv[1]', repr(str(directory / 'd' / 's')))
        result = run(program)
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout == "['inherited']\n"

    @pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
    def test_processes_of_multiprocessing_serve_each_its_own_pools(self, method: str, directory: Path) -> None:
        program = directory / 'program.py'
        program.write_text(f"""{PRELUDE}
import multiprocessing
def work(conn, parent):
    with build('of the child'):
        conn.send((names(), names(parent)))
    conn.recv()
if __name__ == '__main__':
    context = multiprocessing.get_context({method!r})
    with build('of the parent'):
        pipes = [context.Pipe() for _ in range(2)]
        children = [context.Process(target=work, args=(there, os.getpid())) for _, there in pipes]
        for child in children:
            child.start()
        for here, _ in pipes:
            print(*here.recv())
        for here, _ in pipes:
            here.send(None)
        for child in children:
            child.join()
            print(child.exitcode)
        print(names())
""")
        result = run(program, GCPOOL_MONITOR='1')
        assert (result.returncode, result.stderr) == (0, '')
        own = "['of the child', 'of the parent']" if method == 'fork' else "['of the child']"
        assert result.stdout.splitlines() == [*2 * [f"{own} ['of the parent']"], '0', '0', "['of the parent']"]


class TestLoopback:
    """What Windows has in place of Unix sockets works on any system."""

    @pytest.fixture(autouse=True)
    def everywhere(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ('server', 'client'):
            monkeypatch.setattr(f'gcpool._monitor.{module}.transport', LoopbackTransport)

    def test_a_client_gets_a_snapshot(self, pool: ConnectionPool[object, object]) -> None:
        with monitor.serve() as server, pool.connection('db'):
            assert server.path.endswith('.json')
            assert mode_of(server.path) == 0o600
            assert pool_in(ask(find(str(os.getpid()))), 'orders')['stats']['in_use'] == 1
            assert find(None) == server.path
        assert not os.path.exists(server.path)

    @pytest.mark.parametrize('token', [b'', b'0' * 32, b'\xff' * 32, b'short'])
    def test_one_that_does_not_know_the_token_gets_nothing(
        self, token: bytes, pool: ConnectionPool[object, object]
    ) -> None:
        with monitor.serve() as server:
            port = json.loads(Path(server.path).read_text())['port']
            with socket.create_connection(('127.0.0.1', port), PATIENCE) as conn:
                conn.sendall(token)
                conn.shutdown(socket.SHUT_WR)
                assert b''.join(iter(lambda: conn.recv(65536), b'')) == b''
            assert pool_in(ask(server.path), 'orders')['pools'] == 1

    def test_it_listens_to_this_computer_alone(self) -> None:
        with monitor.serve() as server:
            assert server._listener.sock.getsockname()[0] == '127.0.0.1'

    def test_files_that_lead_nowhere(self, directory: Path) -> None:
        with pytest.raises(MonitorError, match='there is no file'):
            ask(str(directory / 'none.json'))
        (directory / 'bad.json').write_text('{}')
        with pytest.raises(MonitorError, match='does not show where a process serves'):
            ask(str(directory / 'bad.json'))
        with monitor.serve() as server:
            left_behind = Path(server.path).read_text()
        (directory / 'stale.json').write_text(left_behind)
        with pytest.raises(MonitorError, match='has ended without removing'):
            ask(str(directory / 'stale.json'))
