"""Recording what the pools of a process do, and the picture of it."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import gcpool.__main__ as cli
import gcpool._monitor.recording as recording_module
from gcpool import monitor
from gcpool.threading import ConnectionPool
from tests.monitor.looks import pool as pool_in_a_look
from tests.monitor.looks import snapshot as look
from tests.monitor.support import counts, pool_in, threads_called
from tests.support import PATIENCE, program_environment
from tests.threads.runtime import until


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestRecord:
    def test_one_snapshot_at_each_end_and_one_an_interval(
        self, tmp_path: Path, pool: ConnectionPool[object, object]
    ) -> None:
        path = tmp_path / 'run.jsonl'
        with monitor.record(path, 0.01) as recording:
            with pool.connection('db'):
                until(lambda: len(lines_of(path)) >= 4)
            (thread,) = threads_called('gcpool-recorder')
            assert thread.daemon
        assert recording.closed
        assert threads_called('gcpool-recorder') == []
        found = [pool_in(snapshot, 'orders') for snapshot in lines_of(path)]
        assert {pool['stats']['in_use'] for pool in found} == {0, 1} or found[1]['stats']['in_use'] == 1
        assert counts(found[-1]['stats']) == counts(pool.get_stats())
        assert 'endpoints' not in found[0]
        size = path.stat().st_size
        recording.close()
        assert path.stat().st_size == size

    def test_two_at_once(self, tmp_path: Path, pool: ConnectionPool[object, object]) -> None:
        with monitor.record(tmp_path / 'a'), monitor.record(str(tmp_path / 'b')):
            pass
        assert len(lines_of(tmp_path / 'a')) == len(lines_of(tmp_path / 'b')) == 2

    @pytest.mark.parametrize(
        ('interval', 'error'), [(0, ValueError), (-1, ValueError), (float('inf'), ValueError), ('1', TypeError)]
    )
    def test_no_interval(self, tmp_path: Path, interval: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match='interval='):
            monitor.record(tmp_path / 'run', interval)
        assert not (tmp_path / 'run').exists()

    def test_no_path(self) -> None:
        with pytest.raises(TypeError, match='expected a string or a path'):
            monitor.record(None)  # type: ignore[arg-type]

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            monitor.record(tmp_path / 'none' / 'run')
        assert threads_called('gcpool-recorder') == []

    @pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is full')
    def test_a_disk_that_is_full(self) -> None:
        with pytest.raises(OSError, match='No space left'):
            monitor.record('/dev/full')
        assert threads_called('gcpool-recorder') == []

    @pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is full')
    def test_a_disk_that_fills_ends_it_and_that_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with monitor.record(tmp_path / 'run', 0.01) as recording, io.FileIO('/dev/full', 'w') as full:
            file, recording._file = recording._file, full
            assert file is not None
            file.close()
            until(lambda: recording.closed)
            until(lambda: not threads_called('gcpool-recorder'))
        assert f'the pools are no longer recorded to {tmp_path / "run"}' in caplog.text

    @pytest.mark.parametrize('failure', [RuntimeError('a password'), SystemExit(3), KeyboardInterrupt()])
    def test_a_look_that_fails_is_told_and_the_next_one_is_recorded(
        self,
        tmp_path: Path,
        pool: ConnectionPool[object, object],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        failure: BaseException,
    ) -> None:
        looks = 0

        def look_or_fail(*, details: bool) -> bytes:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise failure
            return b'{"look":%d}' % looks

        monkeypatch.setattr(recording_module, 'snapshot_as_json', look_or_fail)
        with monitor.record(tmp_path / 'run', 0.01):
            until(lambda: looks > 3)
        assert [line['look'] for line in lines_of(tmp_path / 'run')] == [1, *range(3, looks + 1)]
        assert f'a snapshot of the pools is not recorded: {type(failure).__name__}' in caplog.text

    @pytest.mark.parametrize('failure', [KeyboardInterrupt(), RuntimeError()])
    def test_nothing_that_is_raised_in_its_thread_ends_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: BaseException
    ) -> None:
        with monitor.record(tmp_path / 'run', 0.01) as recording:
            record, failures = recording._background._work, [failure]

            def fail_once() -> None:
                if failures:
                    raise failures.pop()
                record()

            recording._background._work = fail_once
            until(lambda: not failures)
            known = len(lines_of(tmp_path / 'run'))
            until(lambda: len(lines_of(tmp_path / 'run')) > known)
        assert f'thread gcpool-recorder failed, and continues: {type(failure).__name__}' in caplog.text

    def test_ctrl_c_in_the_main_thread_goes_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*, details: bool) -> bytes:
            raise KeyboardInterrupt

        monkeypatch.setattr(recording_module, 'snapshot_as_json', interrupted)
        with pytest.raises(KeyboardInterrupt):
            monitor.record(tmp_path / 'run', 3600)
        assert threads_called('gcpool-recorder') == []

    def test_an_interrupted_close_closes_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        recording = monitor.record(tmp_path / 'run', 3600)
        end = recording._background.end

        def interrupted() -> None:
            end()
            raise KeyboardInterrupt

        monkeypatch.setattr(recording._background, 'end', interrupted)
        with pytest.raises(KeyboardInterrupt):
            recording.close()
        assert recording.closed

    @pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
    def test_a_child_of_a_fork_while_a_line_is_written(self, tmp_path: Path) -> None:
        # A pipe that is full keeps the thread in its write. The child must neither wait for it nor write anything.
        program = """
import os, sys, threading, time
from gcpool import monitor
read, write = os.pipe()
os.set_blocking(write, False)
try:
    while True:
        os.write(write, b'.' * 4096)
except BlockingIOError:
    os.set_blocking(write, True)
recording = monitor.record(sys.argv[1], 3600)
os.dup2(write, recording._file.fileno())
thread = threading.Thread(target=recording._record, daemon=True)
thread.start()
while not recording._lock.locked():
    time.sleep(0.001)
time.sleep(0.05)
pid = os.fork()
if not pid:
    assert recording.closed
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
os._exit(0)
"""
        result = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', program, str(tmp_path / 'run')],
            env=program_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, '')

    @pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
    def test_a_child_records_nothing(self, tmp_path: Path) -> None:
        program = """
import os, sys, threading
from gcpool import monitor
with monitor.record(sys.argv[1], 3600) as recording:
    pid = os.fork()
    if not pid:
        assert recording.closed and threading.active_count() == 1
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    assert threading.active_count() == 2
"""
        path = tmp_path / 'run'
        result = subprocess.run(
            [sys.executable, '-W', 'error', '-c', program, str(path)],
            env=program_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, '')
        assert len({found['pid'] for found in lines_of(path)}) == 1


class TestPlot:
    @pytest.fixture(autouse=True)
    def matplotlib(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('MPLCONFIGDIR', str(tmp_path_factory.getbasetemp() / 'matplotlib'))
        pytest.importorskip('matplotlib')

    @staticmethod
    def record(path: Path, *snapshots: dict[str, Any]) -> str:
        path.write_text(''.join(f'{json.dumps(snapshot)}\n' for snapshot in snapshots))
        return str(path)

    def test_of_a_real_run(
        self, tmp_path: Path, pool: ConnectionPool[object, object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / 'run.jsonl'
        with monitor.record(path, 0.01):
            for _ in range(3):
                with pool.connection('db'):
                    known = len(lines_of(path))
                    until(lambda known=known: len(lines_of(path)) > known)  # type: ignore[misc]
        assert cli.main(['plot', str(path)]) == 0
        assert capsys.readouterr().out == f'{tmp_path / "run.svg"}\n'
        assert ET.parse(tmp_path / 'run.svg').getroot().tag.endswith('svg')

    def test_the_same_recording_gives_the_same_picture(self, tmp_path: Path) -> None:
        path = self.record(tmp_path / 'run', look(pool_in_a_look()), look(pool_in_a_look(), monotonic=101.0))
        pictures = []
        for name in ('a.svg', 'b.svg'):
            assert cli.main(['plot', path, '--output', str(tmp_path / name)]) == 0
            pictures.append((tmp_path / name).read_text())
        assert pictures[0] == pictures[1]

    def test_what_is_drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from gcpool._monitor import plotting

        slow = {'bounds': [0.001, 0.002, 0.004], 'counts': [0, 0, 50, 0], 'sum': 0.15}
        path = self.record(
            tmp_path / 'run',
            look(pool_in_a_look(stats={'in_use': 1}), monotonic=100.0),
            look(pool_in_a_look(stats={'in_use': 4, 'waiting': 9}, histograms={'wait': slow}), monotonic=101.0),
            look(
                pool_in_a_look(stats={'in_use': 2}, histograms={'wait': slow}), pool_in_a_look('late'), monotonic=102.0
            ),
        )
        drawn: list[Any] = []
        monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda figure, *args, **kwargs: drawn.append(figure))
        plotting.plot(path)
        late, orders = drawn[0].subfigs
        assert late.get_suptitle() == 'late'
        connections, waits = orders.axes
        (waiting,) = connections.lines
        assert list(waiting.get_xdata()) == [0.0, 1.0, 2.0]
        assert list(waiting.get_ydata()) == [0, 9, 0]
        assert [text.get_text() for text in connections.get_legend().get_texts()][:2] == ['in use', 'idle']
        longest = next(line for line in waits.lines if line.get_label() == '99 % of the waits')
        first, second = longest.get_ydata()
        assert first == pytest.approx(0.004, rel=0.02)
        # Nobody waited then.
        assert second != second

    def test_a_pool_that_had_no_connection(self, tmp_path: Path) -> None:
        empty = {'size': 0, 'in_use': 0, 'idle': 0, 'creating': 0, 'checking': 0, 'closing': 0}
        looks = [look(pool_in_a_look(stats=empty), monotonic=time) for time in (100.0, 101.0)]
        assert cli.main(['plot', self.record(tmp_path / 'run', *looks)]) == 0
        assert (tmp_path / 'run.svg').exists()

    def test_a_picture_in_another_format(self, tmp_path: Path) -> None:
        path = self.record(tmp_path / 'run', look(pool_in_a_look()))
        assert cli.main(['plot', path, '--output', str(tmp_path / 'run.png')]) == 0
        assert (tmp_path / 'run.png').read_bytes().startswith(b'\x89PNG')

    def test_a_last_line_that_was_cut_off(self, tmp_path: Path) -> None:
        path = self.record(tmp_path / 'run', look(pool_in_a_look()))
        with open(path, 'a') as file:
            file.write('{"version": 1, "poo')
        assert cli.main(['plot', path]) == 0

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            (None, 'cannot be read'),
            (b'', 'is empty'),
            (b'\xff\xff', 'cannot be read'),
            (b'hello\n', 'Line 1 of .* is not a snapshot'),
            (b'{}\n', 'Line 1 of .* is not a snapshot of this version'),
            (b'7\n8\n', 'Line 1 of .* is not a snapshot of this version'),
            (json.dumps(look()).encode(), 'has no pool'),
        ],
    )
    def test_no_recording(
        self, tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / 'run'
        if content is not None:
            path.write_bytes(content)
        assert cli.main(['plot', str(path)]) == 1
        said = capsys.readouterr().err
        assert re.search(message, said), said

    @pytest.mark.parametrize('name', ['run.nothing', 'none/run.svg'])
    def test_a_picture_that_cannot_be_written(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.record(tmp_path / 'run', look(pool_in_a_look()))
        assert cli.main(['plot', path, '--output', str(tmp_path / name)]) == 1
        assert 'cannot be written' in capsys.readouterr().err
