"""The course of the demo: the scenes; two phases under load, the server killed half-way; the comparison, the checks."""

import dataclasses
import os
import tempfile
import time

from gcpool._demo import comparison, figures, scenes, workload
from gcpool._demo.echo_server import EchoServer, ServerError, pick_port
from gcpool._demo.report import Report, describe_glance

HOST = '127.0.0.1'
TICK = 0.1  # seconds between two samples of a phase
RATE_WINDOW = 0.5  # seconds over which the progress line's rate is taken
SERVER_PATIENCE = 20.0  # seconds that the server may take to start
DRAIN_PATIENCE = 30.0  # seconds that the clients of a phase may take to end

LOST = 1


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of the command line.

    :param seconds: how long each phase lasts
    :param threads: threads of the first phase
    :param tasks: tasks of the second phase
    :param connections: maximum number of connections of each pool of the first phase; twice as many in the second
    :param outage: minimum length of the outage, in seconds
    :param rounds: rounds of the comparison, 0 for none
    :param round_seconds: how long about each measurement of the comparison lasts
    """

    seconds: float
    threads: int
    tasks: int
    connections: int
    outage: float
    rounds: int
    round_seconds: float


class Demo:
    """One run of the demo."""

    def __init__(self, settings: Settings, report: Report):
        self._settings = settings
        self._report = report
        self._port = pick_port(HOST)
        self._servers: list[EchoServer] = []
        self._scenes: list[scenes.Scene] = []
        self._columns: list[figures.Figures] = []
        self._courses: list[figures.Course] = []
        self._checks: list[tuple[str, bool]] = []

    def run(self) -> int:
        """Run it.

        :return: the exit code: 0, 1 if something was lost
        :raises KeyboardInterrupt: the user interrupted it; nothing is left behind
        """
        self._report.header()
        self._play_scenes()
        try:
            # On Windows a file that a thread still has open cannot be removed; that is no reason to fail.
            with tempfile.TemporaryDirectory(prefix='gcpool-demo-', ignore_cleanup_errors=True) as folder:
                try:
                    self._run_phases(os.path.join(folder, 'demo.sqlite3'))
                finally:
                    for server in self._servers:
                        server.stop()
        except KeyboardInterrupt:
            self._report.say('The server is stopped, the temporary folder is removed.')
            raise
        except ServerError as error:
            self._report.say(f'The demo cannot continue: {error}.', style='bold red')
            return LOST
        return self._conclude()

    def _play_scenes(self) -> None:
        """Show the effect of connects by the pool itself, without a server."""
        line = self._report.progress('scenes', 1.0)
        with line.live():
            self._scenes = scenes.play(lambda done, of: line.show(done / of, f'{done} of {of} scenes'))
        for scene in self._scenes:
            title = scene.title.replace('\n', ', ')
            self._check(
                f'{title}: {scene.served} of {scenes.CLIENTS} at once served, {scene.opened} connections opened',
                scene.served == scenes.CLIENTS and scene.opened <= scenes.CLIENTS - scenes.IDLE,
            )
            drain = scene.drain
            self._check(
                f'{title}: {drain.answered:,} requests while {drain.replaced} connections were drained, '
                f'{drain.failed} failed, never more than {drain.most} connections',
                drain.replaced == scenes.DRAINED >= drain.most and not drain.failed,
            )

    def _run_phases(self, database: str) -> None:
        settings = self._settings
        server = self._start_server()
        server.wait_ready(SERVER_PATIENCE)
        self._report.say(f'Echo server: process {server.pid} at {HOST}:{self._port}. SQLite database: {database}')

        workload.create_database(database, settings.threads)
        threads = workload.ThreadsPhase(HOST, self._port, database, settings.threads, settings.connections)
        self._run_phase(threads, settings.connections)
        total = workload.read_total(database)
        self._check(
            f'SQLite holds every committed increment: {total:,} of {threads.written:,}', total == threads.written
        )

        self._run_phase(
            workload.TasksPhase(HOST, self._port, settings.tasks, 2 * settings.connections), 2 * settings.connections
        )

    def _run_phase(self, phase: workload.ThreadsPhase | workload.TasksPhase, connections: int) -> None:
        before = self._servers[-1]
        opened_before = before.opened
        before.peak = 0
        try:
            phase.start()
            self._conduct(phase)
            phase.stop()
            lost = phase.join(DRAIN_PATIENCE)
        except BaseException:
            phase.give_up()
            phase.join(5.0)
            phase.close()
            raise
        if lost:
            phase.give_up()
        columns = phase.close()
        self._columns += columns
        self._examine(phase, columns, lost)

        after = self._servers[-1]
        drained = after.wait_all_closed(5.0)
        self._check(
            f'{phase.name}: the restarted server counted {after.opened:,} connections opened, {after.closed:,} closed',
            drained,
        )
        # A connection that the killed server did not come to count is one whose first request failed.
        created, broken = columns[0].stats['created'], columns[0].tally.broken
        counted = before.opened - opened_before + after.opened
        self._check(
            f'{phase.name}: the servers counted {counted:,} connections, the pool {created:,}, '
            f'{broken:,} broke in the middle of a request',
            0 <= created - counted <= broken,
        )
        peak = max(before.peak, after.peak)
        self._check(
            f'{phase.name}: never more than {connections} connections at the server (most: {peak})', peak <= connections
        )

    def _conduct(self, phase: workload.ThreadsPhase | workload.TasksPhase) -> None:
        """Watch the phase until it ends; kill the server half-way, and start it again."""
        settings = self._settings
        line = self._report.progress(phase.name, settings.seconds)
        course = figures.Course(phase.name)
        self._courses.append(course)
        began = last = time.monotonic()
        last_answered = 0
        rate = 0.0
        killed_at = restarted_at = back_at = 0.0
        with line.live():
            while True:
                time.sleep(TICK)
                now = time.monotonic()
                state = 'up'
                if not killed_at:
                    if now - began >= settings.seconds / 2:
                        victim = self._servers[-1]
                        victim.kill()
                        killed_at = time.monotonic()
                        course.killed_at = killed_at - began
                        self._report.say(
                            f'{phase.name}: server killed with {victim.opened - victim.closed} connections open',
                            style='red',
                        )
                        state = 'killed'
                elif not restarted_at:
                    state = 'killed'
                    if now - killed_at >= settings.outage:
                        self._start_server()
                        restarted_at = now
                        state = 'starting'
                elif not back_at:
                    state = 'starting'
                    if self._servers[-1].is_ready():
                        back_at = now
                        course.back_at = back_at - began
                        state = 'back'
                        self._report.say(
                            f'{phase.name}: server back on the same port after {now - killed_at:.1f} s', style='green'
                        )
                    elif now - restarted_at > SERVER_PATIENCE:
                        raise ServerError(f'the echo server did not come back within {SERVER_PATIENCE:g} s')
                # The second half is as long as the first, however long the server was away.
                elif now - back_at >= settings.seconds / 2 - settings.outage:
                    return
                glance = phase.glance()
                course.looks.append((now - began, glance))
                if now - last >= RATE_WINDOW:
                    rate = (glance.answered - last_answered) / (now - last)
                    last, last_answered = now, glance.answered
                line.show(now - began, describe_glance(glance, rate, state))

    def _start_server(self) -> EchoServer:
        server = EchoServer(HOST, self._port)
        self._servers.append(server)
        return server

    def _examine(
        self, phase: workload.ThreadsPhase | workload.TasksPhase, columns: list[figures.Figures], lost: int
    ) -> None:
        """Check what the phase has left behind."""
        self._check(f'{phase.name}: every client ended', not lost)
        for failure in phase.failures:
            self._check(f'{phase.name}: a client failed: {failure!r}', False)
        for column in columns:
            title, tally, stats = column.title, column.tally, column.stats
            self._check(
                f'{title}: {tally.asked:,} requests, {tally.answered:,} answered, {tally.wrong} wrong',
                tally.answered == tally.asked > 0 and not tally.wrong,
            )
            self._check(f'{title}: nothing in use after close, nothing left', not column.left_out and not stats['size'])
            self._check(
                f'{title}: {stats["created"]:,} connections created, {stats["disposed"]:,} closed',
                stats['created'] == stats['disposed'],
            )

    def _check(self, text: str, holds: bool) -> None:
        self._checks.append((text, holds))

    def _conclude(self) -> int:
        self._report.scenes(self._scenes)
        self._report.figures(self._columns)
        self._compare()
        holds = self._report.checks(self._checks)
        self._report.courses(self._courses)
        return 0 if holds else LOST

    def _compare(self) -> None:
        settings = self._settings
        if not settings.rounds:
            return
        version = comparison.find_peer()
        if version is None:
            self._report.say('No comparison: generic-connection-pool is not installed (pip install gcpool[demo]).')
            return
        line = self._report.progress('compare', 1.0)
        with line.live():
            results = comparison.compare(
                settings.rounds,
                settings.round_seconds,
                lambda done, of: line.show(done / of, f'{done} of {of} rounds'),
            )
        self._report.comparisons(results, f'{comparison.PEER_PROJECT} {version}')
