"""``python -m gcpool demo``: what it prints, how it ends, and what it leaves behind."""

import array
import asyncio
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

import gcpool
import gcpool.__main__ as cli
from gcpool._demo import chart, comparison, conductor, figures, scenes, workload
from gcpool._demo.conductor import Demo, Settings
from gcpool._demo.echo_server import EchoServer, ServerError, pick_port
from gcpool._demo.report import PIPED_WIDTH, Report, describe_glance
from gcpool._version import __version__

BOUND = 60.0  # seconds that a program of these tests may take; none needs more than a few
HOST = '127.0.0.1'

# The scenes take six seconds. Most tests are of what comes after them.
WITHOUT_SCENES = 'from gcpool._demo import scenes\nscenes.play = lambda shown: []'

SMALL = Settings(seconds=0.5, threads=4, tasks=20, connections=2, outage=0.0, rounds=0, round_seconds=0.0)


def environment(tmp_path: Path) -> dict[str, str]:
    """Of a program whose temporary files all land in ``tmp_path``, and which finds the package where this test did."""
    found = str(Path(gcpool.__file__).parents[1])
    kept = {name: value for name, value in os.environ.items() if name not in {'COLUMNS', 'FORCE_COLOR'}}
    return {
        **kept,
        'PYTHONPATH': os.pathsep.join(filter(None, [found, kept.get('PYTHONPATH', '')])),
        'PYTHONIOENCODING': 'utf-8',
        **dict.fromkeys(('TMPDIR', 'TEMP', 'TMP'), str(tmp_path)),
    }


def run(tmp_path: Path, *arguments: str, prelude: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m gcpool``, on request after a few lines of Python in the same process."""
    command = [sys.executable, '-W', 'error', '-m', 'gcpool', *arguments]
    if prelude is not None:
        start = f'import runpy, sys\n{prelude}\nrunpy.run_module("gcpool", run_name="__main__", alter_sys=True)'
        command = [sys.executable, '-W', 'error', '-c', start, *arguments]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        encoding='utf-8',
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        timeout=BOUND,
    )


@pytest.fixture
def without_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, 'play', lambda shown: [])


def cells(output: str, label: str) -> list[str]:
    """Return the cells of the row of a table that begins with ``label``."""
    (row,) = [line for line in output.splitlines() if line.strip().startswith(label)]
    return re.split(r'\s{2,}', row.strip())[1:]


def numbers(output: str, label: str) -> list[float]:
    return [float(cell.replace(',', '')) for cell in cells(output, label)]


def test_quick_demo_reports_and_checks_both_phases(tmp_path: Path) -> None:
    done = run(tmp_path, 'demo', '--quick')

    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []
    output = done.stdout
    for phase in ('threads', 'tasks'):
        assert f'{phase}: server killed' in output
        assert f'{phase}: server back on the same port' in output
    assert '16 threads, TCP' in output
    assert '16 threads, SQLite' in output
    assert '500 tasks, TCP' in output

    cycles = numbers(output, 'cycles  ')
    created = numbers(output, 'connections created')
    reused = numbers(output, 'connections reused')
    assert len(cycles) == 3
    assert min(cycles) > 0
    assert min(numbers(output, 'cycles per second')) > 0
    assert all(re.fullmatch(r'[\d.,]+ (s|ms|us|ns)', cell) for cell in cells(output, 'acquire latency, median'))
    assert len(cells(output, 'acquire latency, 99th percentile')) == 3
    assert all(0 < fairness <= 1 for fairness in numbers(output, 'fairness'))
    # Every cycle needs an acquire, and the broken ones another.
    assert all(c + r >= done for c, r, done in zip(created, reused, cycles, strict=True))
    # Both TCP pools lost what they had to the kill; the database lost nothing.
    dead = [
        found + broken
        for found, broken in zip(
            numbers(output, 'connections found dead'), numbers(output, 'connections broken in use'), strict=True
        )
    ]
    assert dead[0] > 0
    assert dead[1] == 0
    assert dead[2] > 0
    assert created[0] > 4
    assert created[1] <= 4
    assert created[2] > 8
    assert len(numbers(output, 'acquires that waited')) == 3
    for error in ('connecting failed', 'request broken half-way', 'timed out', 'wrong answer'):
        assert len(numbers(output, error)) == 3
    assert numbers(output, 'wrong answer') == [0, 0, 0]

    assert len(cells(output, 'warm_up() of 5, wait()')) == 4
    opened = numbers(output, '50 at once, connections opened')
    assert len(opened) == 4
    assert all(0 < count <= 45 for count in opened)
    assert output.count('50 of 50 at once served') == 4
    assert numbers(output, 'drain() of 8, connections replaced') == [8] * 4

    for case in ('one thread: acquire, release', 'asyncio: acquire, release'):
        assert cells(output, case)[-1].endswith('x')
    assert 'FAILED' not in output
    assert output.count('  ok  ') >= 15
    shown = output[output.index('What the pools did: threads') :]
    for label in ('in use, at most', 'idle, at most', 'waiting, at most', 'K server killed, B back'):
        assert shown.count(label) == 2


def test_piped_output_is_plain_and_of_fixed_width(tmp_path: Path) -> None:
    prelude = f'{WITHOUT_SCENES}\nfrom gcpool._demo import report\nreport.LINE_EVERY = 0.2'
    done = run(tmp_path, 'demo', '--quick', '--no-compare', '--seconds', '0.5', prelude=prelude)

    assert done.returncode == 0, done.stdout + done.stderr
    assert '\x1b' not in done.stdout
    assert '\r' not in done.stdout
    assert 'generic-connection-pool' not in done.stdout
    for phase in ('threads', 'tasks'):
        lines = re.findall(rf'^{phase} +\d+\.\d s +[\d,]+/s +\d+ in use +[\d,]+ waiting .*$', done.stdout, re.MULTILINE)
        assert lines, done.stdout
    rules = [line for line in done.stdout.splitlines() if re.fullmatch(r'[ \u2500-]+', line) and line.strip()]
    assert len(rules) == 2
    assert all(len(rule) <= PIPED_WIDTH for rule in rules)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['demo', '--seconds', 'soon'],
            "argument --seconds: expected a number of seconds from 0.5 to 3600, got 'soon'",
        ),
        (['demo', '--seconds', 'nan'], "argument --seconds: expected a number of seconds from 0.5 to 3600, got 'nan'"),
        (['demo', '--seconds', '-1'], "argument --seconds: expected a number of seconds from 0.5 to 3600, got '-1'"),
        (['demo', '--threads', '0'], "argument --threads: expected a whole number from 1 to 2000, got '0'"),
        (['demo', '--tasks', '1e4'], "argument --tasks: expected a whole number from 1 to 1000000, got '1e4'"),
        (['demo', '--connections', '201'], "argument --connections: expected a whole number from 1 to 200, got '201'"),
        (['demo', '--slow'], 'unrecognized arguments: --slow'),
        (['dmeo'], "'dmeo'"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)

    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not captured.out


def test_wrong_option_of_the_program(tmp_path: Path) -> None:
    done = run(tmp_path, 'demo', '--threads', 'many')

    assert done.returncode == 2
    assert "expected a whole number from 1 to 2000, got 'many'" in done.stderr
    assert not done.stdout


def test_version_and_help(tmp_path: Path) -> None:
    version = run(tmp_path, '--version')
    assert (version.returncode, version.stdout.strip()) == (0, f'gcpool {__version__}')

    overview = run(tmp_path, '--help')
    assert overview.returncode == 0
    assert 'demo' in overview.stdout

    options = run(tmp_path, 'demo', '--help')
    assert options.returncode == 0
    for option in ('--seconds', '--threads', '--tasks', '--connections', '--no-compare', '--quick'):
        assert option in options.stdout


def test_without_rich_it_says_what_to_install(tmp_path: Path) -> None:
    done = run(tmp_path, 'demo', '--quick', prelude='sys.modules["rich"] = None')

    assert done.returncode == 2
    assert done.stderr.strip() == 'The demo needs rich, which is not installed: pip install gcpool[demo]'
    assert not done.stdout


def test_without_the_peer_only_the_comparison_is_missing(tmp_path: Path) -> None:
    prelude = f'{WITHOUT_SCENES}\nsys.modules["generic_connection_pool"] = None'
    done = run(tmp_path, 'demo', '--quick', '--seconds', '0.5', prelude=prelude)

    assert done.returncode == 0, done.stdout + done.stderr
    assert 'No comparison: generic-connection-pool is not installed' in done.stdout
    assert '  ok  ' in done.stdout


def test_a_loss_is_shown_and_fails_the_program(tmp_path: Path) -> None:
    prelude = f'{WITHOUT_SCENES}\nfrom gcpool._demo import workload\nworkload.read_total = lambda path: -1'
    done = run(tmp_path, 'demo', '--quick', '--seconds', '0.5', '--no-compare', prelude=prelude)

    assert done.returncode == 1
    assert not done.stderr
    assert re.search(r'FAILED +SQLite holds every committed increment: -1 of \d+', done.stdout)
    assert done.stdout.count('FAILED') == 1


@pytest.mark.usefixtures('without_scenes')
def test_a_wrong_answer_is_counted_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    receive = workload._receive
    spoiled: list[bytes] = []

    def spoil_the_first(conn: socket.socket, size: int) -> bytes:
        answer = receive(conn, size)
        if not spoiled:
            spoiled.append(answer)
            return b'?' * size
        return answer

    monkeypatch.setattr(workload, '_receive', spoil_the_first)
    output = io.StringIO()

    code = Demo(SMALL, Report(Console(file=output, width=PIPED_WIDTH))).run()

    assert code == 1
    assert numbers(output.getvalue(), 'wrong answer') == [1, 0, 0]
    (failed,) = [line for line in output.getvalue().splitlines() if 'FAILED' in line]
    assert re.search(r'4 threads, TCP: ([\d,]+) requests, \1 answered, 1 wrong', failed)


def test_a_scene_in_which_somebody_is_not_served_fails_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes.Scene('50 tasks\ndefault', 0.15, 0.45, 0.002, 45, 49, 0.15, 0.15, scenes.Drain(100, 1, 8, 9, 0.2))
    monkeypatch.setattr(scenes, 'play', lambda shown: [scene])
    output = io.StringIO()

    code = Demo(SMALL, Report(Console(file=output, width=PIPED_WIDTH))).run()

    assert code == 1
    assert 'FAILED  50 tasks, default: 49 of 50 at once served, 45 connections opened' in output.getvalue()
    assert 'FAILED  50 tasks, default: 100 requests while 8 connections were drained, 1 failed' in output.getvalue()
    assert cells(output.getvalue(), 'first request, no connections') == ['150 ms']


@pytest.mark.usefixtures('without_scenes')
def test_an_error_of_a_client_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(conn: socket.socket, size: int) -> bytes:
        raise ZeroDivisionError('unforeseen')

    monkeypatch.setattr(workload, '_receive', fail)
    output = io.StringIO()

    code = Demo(SMALL, Report(Console(file=output, width=PIPED_WIDTH))).run()

    assert code == 1
    assert output.getvalue().count("threads: a client failed: ZeroDivisionError('unforeseen')") == SMALL.threads


@pytest.mark.usefixtures('without_scenes')
def test_clients_that_hang_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    release_threads = threading.Event()

    def hang(conn: socket.socket, size: int) -> bytes:
        release_threads.wait(BOUND)
        raise ConnectionResetError

    async def hang_too(self: workload.TasksPhase, index: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(workload, '_receive', hang)
    monkeypatch.setattr(workload.TasksPhase, '_echo', hang_too)
    monkeypatch.setattr(workload, 'CLOSE_PATIENCE', 0.1)
    monkeypatch.setattr(conductor, 'DRAIN_PATIENCE', 0.1)
    before = set(threading.enumerate())
    output = io.StringIO()

    code = Demo(SMALL, Report(Console(file=output, width=PIPED_WIDTH))).run()

    release_threads.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(BOUND)
        assert not thread.is_alive()
    assert code == 1
    for phase in ('threads', 'tasks'):
        assert f'  FAILED  {phase}: every client ended' in output.getvalue()
    assert '  FAILED  4 threads, TCP: nothing in use after close, nothing left' in output.getvalue()


@pytest.mark.skipif(sys.platform == 'win32', reason='a test cannot press Ctrl-C for one process of its console alone')
@pytest.mark.parametrize('moment', ['Echo server', 'threads: server killed', 'tasks: server back'])
def test_interrupted_it_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    # SIGINT is ignored in what a shell starts in the background, and that is inherited.
    start = (
        f'import runpy, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{WITHOUT_SCENES}\n'
        'runpy.run_module("gcpool", run_name="__main__", alter_sys=True)'
    )
    with subprocess.Popen(
        [sys.executable, '-u', '-c', start, 'demo', '--seconds', '0.8', '--tasks', '2000'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding='utf-8',
        env=environment(tmp_path),
    ) as program:
        try:
            assert program.stdout is not None
            seen = []
            for line in program.stdout:
                seen.append(line)
                if line.startswith(moment):
                    break
            program.send_signal(signal.SIGINT)
            rest, errors = program.communicate(timeout=BOUND)
        finally:
            program.kill()

    assert program.returncode == 130, ''.join(seen) + rest + errors
    assert errors.strip() == 'Interrupted.'
    assert rest.endswith('The server is stopped, the temporary folder is removed.\n')
    assert list(tmp_path.iterdir()) == []
    match = re.search(r'at 127\.0\.0\.1:(\d+)', ''.join(seen))
    assert match is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, int(match[1])), timeout=5.0)


def test_comparison_measures_all_cases() -> None:
    progress: list[tuple[int, int]] = []
    assert comparison.find_peer() is not None

    results = comparison.compare(1, 0.001, lambda done, of: progress.append((done, of)))

    assert [result.case for result in results] == [
        'one thread: acquire, release',
        'one thread: with connection()',
        'asyncio: acquire, release',
        'asyncio: async with connection()',
    ]
    assert all(result.ours > 0 and result.peer > 0 for result in results)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_progress_line_on_a_terminal_is_drawn_in_place() -> None:
    output = io.StringIO()
    report = Report(Console(file=output, force_terminal=True, width=80))
    text = describe_glance(figures.Glance(answered=5, errors=12_345, out=16, waiting=9_984), 54_321.0, 'starting')

    line = report.progress('threads', 6.0)
    with line.live():
        line.show(3.0, text)

    drawn = re.sub(r'\x1b\[[\d;?]*[A-Za-z]', '', output.getvalue())
    assert '54,321/s  16 in use  9,984 waiting 12,345 errors, server starting' in drawn
    assert '\x1b[2K' in output.getvalue()


def test_report_is_ascii_where_the_output_is() -> None:
    raw = io.BytesIO()
    column = figures.Figures('4 threads, TCP', 2, 1.0, figures.Tally(), 1.0, dict.fromkeys(STATS, 0), 0)

    with io.TextIOWrapper(raw, encoding='ascii') as output:
        report = Report(Console(file=output, width=PIPED_WIDTH))
        report.header()
        report.figures([column])
        report.comparisons([comparison.Comparison('a case', 1e-7, 2e-5)], 'peer')
        assert report.checks([('all is well', True)])
        assert not report.checks([('all is well', True), ('it is not', False)])
        output.flush()
        text = raw.getvalue().decode('ascii').replace('|', ' ')

    assert cells(text, 'a case') == ['100 ns', '20.0 us', '200x']
    assert 'FAILED  it is not' in text


def test_a_chart_has_a_sign_for_all_that_is_not_nothing() -> None:
    samples = [(0.0, 0), (0.1, 1), (1.0, 100), (1.1, 7), (2.0, 1_000)]

    assert chart.resample(samples, 4) == [1, 1, 100, 1_000]
    assert chart.resample([], 2) == [0, 0]
    assert chart.resample([(0.0, 5)], 2) == [5, 5]
    assert chart.line_of([1, 100, 1_000, 0], 1_000, plain=False) == '▁▁█ '
    assert chart.line_of([1, 500, 1_000, 0], 1_000, plain=True) == '.=@ '
    assert chart.line_of([0, 0], 0, plain=True) == '  '
    assert chart.marks_of({'K': 1.0, 'B': float('nan')}, 2.0, 4) == '  K '
    assert chart.marks_of({'K': 2.0, 'B': 2.1}, 2.0, 4) == '   K'


@pytest.mark.parametrize(('encoding', 'signs'), [('utf-8', chart.BLOCKS), ('ascii', chart.PLAIN)])
def test_the_demo_ends_with_a_chart_of_what_it_saw(encoding: str, signs: str) -> None:
    raw = io.BytesIO()
    looks = [(at / 10, figures.Glance(at, 0, at % 5, 50 - at, 2)) for at in range(50)]
    course = figures.Course('threads', looks, killed_at=2.5, back_at=3.0)

    with io.TextIOWrapper(raw, encoding=encoding) as output:
        report = Report(Console(file=output, width=PIPED_WIDTH))
        report.courses([course, figures.Course('nothing was seen of it')])
        output.flush()
        lines = raw.getvalue().decode(encoding).splitlines()

    assert lines[1] == 'What the pools did: threads, 4.9 s'
    assert [line[:26].strip() for line in lines[2:]] == [
        'in use, at most 4',
        'idle, at most 2',
        'waiting, at most 50',
        'K server killed, B back',
    ]
    assert all(len(line) <= PIPED_WIDTH for line in lines)
    waiting = lines[4][26:]
    assert waiting[0] == signs[-1]
    assert waiting[-1] == signs[1]
    assert set(waiting) <= {*signs}
    assert lines[5].index('K') < lines[5].index('B') < 26 + 64
    assert not any('nothing was seen' in line for line in lines)


STATS = ('created', 'acquires', 'dead', 'broken', 'waits')


@pytest.mark.parametrize(('shares', 'index'), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([3, 1], 0.8)])
def test_jain(shares: list[int], index: float) -> None:
    assert figures.jain(shares) == pytest.approx(index)


def test_wait_percentiles() -> None:
    tally = figures.Tally(waits=array.array('d', [value / 100 for value in range(100, 0, -1)]))
    column = figures.Figures('', 1, 1.0, tally, 1.0, {}, 0)

    assert column.wait_percentile(50) == pytest.approx(0.51)
    assert column.wait_percentile(99) == pytest.approx(1.0)


def test_server_counts_and_comes_back_on_its_port() -> None:
    port = pick_port(HOST)
    first = EchoServer(HOST, port)
    try:
        first.wait_ready(BOUND)
        with socket.create_connection((HOST, port), timeout=5.0) as one, socket.create_connection((HOST, port)) as two:
            for conn in (one, two):
                conn.sendall(b'hello')
                assert workload._receive(conn, 5) == b'hello'
            first.kill()
            assert (first.opened, first.closed, first.peak) == (2, 0, 2)
            assert one.recv(1) == b''

            second = EchoServer(HOST, port)
            try:
                second.wait_ready(BOUND)
                with socket.create_connection((HOST, port), timeout=5.0) as three:
                    three.sendall(b'again')
                    assert workload._receive(three, 5) == b'again'
                    # The server counts in a process of its own, and what it counts arrives by a pipe.
                    give_up = time.monotonic() + BOUND
                    while second.opened < 1 and time.monotonic() < give_up:
                        time.sleep(0.01)
                    assert not second.wait_all_closed(0.0)
                assert second.wait_all_closed(BOUND)
                assert (second.opened, second.closed, second.peak) == (1, 1, 1)
            finally:
                second.stop()
    finally:
        first.stop()


def test_server_that_cannot_listen_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    server = EchoServer('192.0.2.1', 12_345)  # reserved for documentation: no machine has it
    try:
        with pytest.raises(ServerError, match='ended with code 1 before it listened'):
            server.wait_ready(BOUND)
    finally:
        server.stop()
    assert 'echo server: ' in capfd.readouterr().err


def test_server_ends_with_its_parent(tmp_path: Path) -> None:
    port = pick_port(HOST)
    parent = (
        'import os\nfrom gcpool._demo.echo_server import EchoServer\n'
        f'server = EchoServer({HOST!r}, {port})\nserver.wait_ready({BOUND})\nprint(server.pid, flush=True)\nos._exit(0)'
    )
    # The server has inherited the standard error, so this returns when the server, too, has ended.
    done = subprocess.run(
        [sys.executable, '-c', parent],
        check=True,
        capture_output=True,
        env=environment(tmp_path),
        timeout=BOUND,
    )

    assert int(done.stdout) > 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5.0)
