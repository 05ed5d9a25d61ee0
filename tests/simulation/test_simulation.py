"""The simulator finds what is wrong, and finds it again."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool._core import PoolCore, Waiter
from gcpool._workers.collector_threads import SyncCollector
from gcpool._workers.per_process import PerProcess
from tests.conftest import QUICK
from tests.simulation import __main__ as command_line
from tests.simulation import compiled, core
from tests.simulation import world as world_module
from tests.simulation.failure import SimulationError
from tests.simulation.forking import CAN_BEGIN_ANEW, begin_anew
from tests.simulation.world import CLOSED, FAULTS, INHERITED, Connection, User, World
from tests.support import program_environment

PARTS = ('asyncio', 'threads')
STEPS = 10_000 if QUICK else 60_000
# Within so many steps each of the faults below is found, on every seed that was tried.
PATIENCE = 400_000

LIKE_A_FORK = pytest.mark.skipif(not CAN_BEGIN_ANEW, reason='no process shares the memory of another one there')

STARVING = re.compile('nothing will ever wake|not served within')


@pytest.fixture(params=PARTS)
def part(request: pytest.FixtureRequest) -> str:
    if request.param == 'threads':
        pytest.importorskip('greenlet', reason='greenlet is not installed')
    return str(request.param)


def module_of(part: str) -> Any:
    return command_line.module_of(part)


def command(part: str, *arguments: str, hash_seed: str = '0') -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'tests.simulation', part, *arguments],
        cwd=Path(__file__).parents[2],
        env={**program_environment(), 'PYTHONHASHSEED': hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


# -- a seed is a run --------------------------------------------------------------------------------------------------


def test_repeats_to_the_same_hash(part: str) -> None:
    simulate = module_of(part).simulate
    first = simulate(7, STEPS)
    assert simulate(7, STEPS) == first
    assert simulate(8, STEPS) != first
    done = command(part, '--seed', '7', '--steps', str(STEPS), hash_seed='123')
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'trace {first}' in done.stdout


def test_draws_and_names_a_seed(part: str) -> None:
    first, second = (command(part, '--steps', '1').stdout.splitlines()[0] for _ in range(2))
    assert first.startswith(f'{part}: seed ')
    assert first != second


def test_does_the_same_each_time_where_nothing_may_be_drawn() -> None:
    pytest.importorskip('greenlet', reason='greenlet is not installed')
    try:
        core.load()
    except compiled.CannotCompile as exc:
        pytest.skip(str(exc))
    # All parts in one process, as `make test` runs them.
    first, second = (command('all', '--fixed', '0.01', hash_seed=seed) for seed in ('0', '123'))
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.sub('[0-9]+ a second', '', first.stdout) == re.sub('[0-9]+ a second', '', second.stdout)
    for part, steps in command_line.STEPS_A_SECOND.items():
        assert f'{part}: {steps // 100} steps' in first.stdout


def test_a_fixed_run_takes_no_seed(part: str) -> None:
    done = command(part, '--fixed', '1', '--seed', '2')
    assert done.returncode == 2
    assert '--seed and --fixed: expected one of them' in done.stderr


def test_leaves_the_process_as_it_was(part: str) -> None:
    hook, task = sys.unraisablehook, asyncio.Task
    module_of(part).simulate(1, 1)
    assert (sys.unraisablehook, asyncio.Task) == (hook, task)
    assert gcpool.threading.ConnectionPool._arm.__globals__['threading'] is threading
    assert SyncCollector._getpid is PerProcess._getpid is os.getpid
    assert 'debug' not in vars(logging.getLogger('gcpool'))


def test_runs_without_faults(part: str) -> None:
    _, steps = module_of(part).simulate_world(3, STEPS, FAULTS)
    assert steps > 300


def test_refuses_faults_that_there_are_not(part: str) -> None:
    done = command(part, '--without', 'cancel,flood')
    assert done.returncode == 2
    assert '--without flood: expected some of' in done.stderr


@LIKE_A_FORK
def test_pools_begin_anew_in_a_process_that_does_not_fork() -> None:
    core = PoolCore(1, 1, 1, 10.0, 100.0)
    for epoch in range(1, 4):
        waiter = Waiter('a')
        core.request(waiter, 0.0)
        assert core.created(waiter.served, object(), 0.0)
        assert core.size == 1
        begin_anew(core)
        assert (core.size, core.fork_epoch) == (0, epoch)


def test_threads_that_are_ended_after_a_run_read_the_clock_without_being_interrupted() -> None:
    """Destructors read it, and what they raise is printed."""
    pytest.importorskip('greenlet', reason='greenlet is not installed')
    threads_module = module_of('threads')
    threads = threads_module.Threads(1, STEPS, ())
    threads.switchiness = 1.0
    read: list[float] = []

    def sleep() -> None:
        try:
            threads.nap(1.0)
        finally:
            read.append(threads.clock())
            threads_module.Lock(threads).acquire()
            read.append(threads.clock())

    fiber = threads.start(sleep)
    threads.ready.remove(fiber)
    threads.current = fiber
    fiber.switch()
    assert fiber.waits
    threads.end()
    assert len(read) == 2


# -- each judge finds what it is for ----------------------------------------------------------------------------------


def find(part: str) -> SimulationError:
    with pytest.raises(SimulationError) as found:
        module_of(part).simulate(1000, PATIENCE)
    return found.value


def pool_of(part: str) -> Any:
    return (gcpool.asyncio if part == 'asyncio' else gcpool.threading).ConnectionPool


def test_finds_a_release_that_is_forgotten(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By liveness: nobody is served any more, or the connection is never closed."""
    runtime: Any = module_of(part).Tasks if part == 'asyncio' else module_of(part).Threads
    original = runtime.__init__

    def forget(self: Any, *args: Any) -> None:
        original(self, *args)
        release, self.releases = self.release, 0

        def forgetful(conn: Connection, endpoint: int) -> Any:
            self.releases += 1
            return iter(()) if self.releases % 50 == 0 else release(conn, endpoint)

        self.release = forgetful

    monkeypatch.setattr(runtime, '__init__', forget)
    assert re.search(f'{STARVING.pattern}|outlive|given back raised nothing', find(part).rule)


def test_finds_a_connection_that_is_disposed_of_twice(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = World.dispose

    def dispose(world: World, conn: Connection, *args: Any) -> Any:
        if conn.number % 20 == 0:
            # As if that had been done.
            conn.state = CLOSED
        return original(world, conn, *args)

    monkeypatch.setattr(World, 'dispose', dispose)
    assert 'is disposed of twice' in find(part).rule


def test_finds_a_waiter_that_is_never_notified(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(part)
    original = pool._arm
    armed = 0

    def arm(self: Any, waiter: Any) -> Any:
        nonlocal armed
        armed += 1
        signal = original(self, waiter)
        if armed % 50 == 0:
            waiter.arm(lambda: None)
        return signal

    monkeypatch.setattr(pool, '_arm', arm)
    # Served a ticket without knowing it, it holds a slot for nothing.
    assert re.search(f'{STARVING.pattern}|slots are taken', find(part).rule)


def test_finds_a_connection_too_many(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = World.__init__

    def allow_less(world: World, *args: Any) -> None:
        original(world, *args)
        # Less than the pool is told.
        world.max_size -= 1

    monkeypatch.setattr(World, '__init__', allow_less)
    assert re.search(r'server . sees . connections of at most .', find(part).rule)


def test_finds_a_connection_of_two_users(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = World.take

    def take(world: World, user: User, conn: Connection, endpoint: int) -> None:
        # As if the user before had not given it back.
        if world.runtime.step > 500:
            conn.user = world.users[0]
        original(world, user, conn, endpoint)

    monkeypatch.setattr(World, 'take', take)
    assert 'and now also with' in find(part).rule


def test_finds_a_check_that_is_ignored(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_of(part), '_must_check', lambda *_: False)
    assert 'is served without a check' in find(part).rule


@LIKE_A_FORK
def test_finds_what_a_forked_child_has_of_its_parent(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, 'begin_anew', lambda core: None)
    assert 'the pool of a forked child is not empty' in find(part).rule


@LIKE_A_FORK
def test_finds_what_a_forked_child_does_to_a_connection_of_its_parent(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = World.judge_own

    def judge_own(world: World, conn: Connection) -> None:
        # As if the child had connected no connection itself.
        conn.state = INHERITED if world.inherited else conn.state
        original(world, conn)

    monkeypatch.setattr(World, 'judge_own', judge_own)
    assert 'is not left alone' in find(part).rule


def test_finds_an_answer_to_somebody_else(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, 'leave_tidy', lambda *_, **options: None)
    assert 'answer to' in find(part).rule


def test_finds_a_close_that_does_not_wait(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if part == 'asyncio':

        async def end_at_once(*_: object) -> None:
            return

        monkeypatch.setattr(pool_of(part), '_dispose_doomed', end_at_once)
    else:
        monkeypatch.setattr(pool_of(part), '_wait', lambda *_: True)
    assert find(part).rule


def test_finds_a_message_that_does_not_fit(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, 'log', lambda world, message, *args: message % (*args, 1))
    assert 'unraisable' in find(part).rule


# -- it says how to repeat it -----------------------------------------------------------------------------------------


def test_shrinks_and_repeats(part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pool_of(part), '_must_check', lambda *_: False)
    assert not command_line.run(part, 1000, PATIENCE, None, ())
    printed = capsys.readouterr().out
    commands = [line.split(': ')[1].split() for line in printed.splitlines() if 'repeat: ' in line]
    assert len(commands) == 2, printed
    for words in commands:
        options = dict(zip(words[4::2], words[5::2], strict=True))
        without = tuple(options.get('--without', '').split(','))
        with pytest.raises(SimulationError) as repeated:
            module_of(part).simulate(int(options['--seed']), int(options['--steps']), without)
        assert str(repeated.value) in printed
        assert int(options['--steps']) <= repeated.value.step + 1
    assert len(commands[1]) > len(commands[0]), 'no fault was switched off'
    assert 'commit' in printed
