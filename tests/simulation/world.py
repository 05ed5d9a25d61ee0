"""The world around a simulated pool: servers, connections, users, faults, and the books that judge the pool.

It is shared by both runtimes. What takes time is a generator, which is suspended at each ``yield self.nap(seconds)``.
On asyncio `nap` returns what a task awaits, and the generators are coroutines. With threads `nap` itself switches to
another thread, and what is yielded means nothing.

Each seed draws a world of its own: the parameters of the pool, the hooks that the manager has, how often each fault
happens, and which faults do not happen at all.
"""

import contextlib
import gc
import logging
import random
import sys
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import contextmanager
from types import coroutine
from typing import Any, Protocol

from gcpool import _parameters
from gcpool.exceptions import (
    ConnectionNotAcquired,
    ConnectionPoolClosedError,
    ConnectionPoolNotFound,
    DiscardConnection,
    EndpointDown,
    PoolSuspended,
    PoolTimeout,
    TooManyRequests,
)
from tests.simulation.attempts import Attempts
from tests.simulation.failure import SimulationError
from tests.simulation.forking import CAN_BEGIN_ANEW, begin_anew
from tests.simulation.taking import MEMORY_OF_OUTAGES, Taking

# What can go wrong besides the pool. A run can be repeated without some of them.
FAULTS = (
    'block_raises',  # the user's block raises
    'cancel',  # a task is cancelled; in a thread, a signal handler raises
    'close',  # the pool is closed while it is used
    'drain',  # the connections of a server are replaced
    'discard',  # on_release raises DiscardConnection
    'forget',  # a coroutine or a context is dropped
    'fork',  # (Linux) the world goes on in a forked child
    'half_open',  # a connection dies and nobody is told
    'hang',  # a server answers nothing for a while
    'hook_raises',  # a hook, a check or a dispose raises an Exception
    'interrupt',  # it raises what is no Exception
    'lie',  # a check says of a dead connection that it is alive
    'log_raises',  # a log handler raises
    'long_hold',  # a user keeps a connection for long
    'no_thread',  # (threads) no thread can be started
    'outage',  # a server refuses for a while
    'refuse',  # one connect is refused
    'release_twice',  # a connection is given back twice, or to another endpoint
    'resize',  # the limits are changed
    'restart',  # a server ends all its sessions
    'short_timeout',  # an acquire has little time
    'signal',  # a signal handler raises in the pool's own code
    'slow_close',  # a dispose takes long
    'stall',  # the process stands still while time passes
    'full',  # a server takes fewer connections for a while
    'pin',  # an endpoint is warmed up, or no longer
    'suspend',  # nobody is served for a while
    'unpin',  # an endpoint is forgotten
)

# These are drawn apart, and only in worlds whose pool creates connections itself.
GROWTH_FAULTS = ('full', 'pin')

# This one is drawn with the ways of taking connections.
TAKING_FAULTS = ('unpin',)

# Of these many may come together in a busy world.
MISCHIEF = (
    *('cancel', 'close', 'drain', 'half_open', 'hang', 'outage', 'resize', 'restart', 'stall', 'suspend'),
    *GROWTH_FAULTS,
    *TAKING_FAULTS,
)

# What a manager for threads says when its time is over.
SERVER_TIMEOUTS = ('the server hangs', 'the server is slow')

# Seconds of the longest pause between two attempts of an outage.
LONGEST_PAUSE = 6.0

# Seconds without faults after which each pinned endpoint has its connections.
TIME_TO_FILL = 2.0 * LONGEST_PAUSE + 3.0

# Simulated seconds after the last fault within which everybody is served, and within which a closed pool is empty.
BOUND = 120.0

# Simulated seconds that an acquire may be late: for hooks, for what the manager tidies up after a cancellation, and for
# the disposes that it does itself where no thread can be started, which get 0.1 s even when the time is over.
LATENESS = 1.0

# Simulated seconds that a dispose with a time limit may be late: some turns of the loop.
PUNCTUALITY = 0.01

# Steps after the last fault within which a world ends.
STEPS_TO_END = 200_000

# Simulated seconds that a step takes.
TICK = 1e-6

MASK = 0xFFFFFFFFFFFFFFFF
LONG = 1000.0
ENDLESS = float('inf')

# Why a connection is never served again whose server was drained.
DRAINED = 'drained'

# An inherited connection is one of the process that this one was forked from.
# One that its user keeps is none of the pool's; for a moment it is not known whether it is one yet.
OPEN, CLOSING, CLOSED, INHERITED, DETACHING, DETACHED = range(6)

Steps = Generator[Any, Any, Any]


class Refused(Exception):
    """The server does not take the connection, or a hook fails: what any manager may raise."""


class Full(Refused):
    """The server says that it has too many connections."""


class BlockFailed(Exception):
    """What a user's block raises."""


class LogFailed(Exception):
    """What a log handler raises."""


class Interruption(BaseException):
    """Stands for what is no Exception, as KeyboardInterrupt, which would end the simulation.

    :cvar count: how many there have been
    """

    count = 0

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        Interruption.count += 1


class Runtime(Protocol):
    """What the two runtimes do differently."""

    pool: Any
    now: float
    step: int
    asynchronous: bool
    # Whether nobody comes between the beginning of a release and its end.
    releases_at_once: bool
    # What interrupts a user from outside.
    interruptions: tuple[type[BaseException], ...]
    # What an acquire may end with when its time is over.
    timeouts: tuple[type[BaseException], ...]

    def nap(self, seconds: float) -> Any: ...
    def hang(self, seconds: float) -> Any: ...
    def wake_hung(self) -> None: ...
    def cancel(self, user: 'User') -> None: ...
    def recover(self) -> None: ...
    def disturb_worker(self) -> None: ...
    def has_collector(self) -> bool: ...
    def workers_are_busy(self) -> bool: ...
    def late_workers(self) -> int: ...
    def left_behind(self) -> list[Any]: ...
    def stall(self, seconds: float) -> None: ...
    def spawn(self, steps: Callable[[], Steps]) -> Any: ...
    def acquire(self, endpoint: int, timeout: float | None) -> Any: ...
    def release(self, conn: 'Connection', endpoint: int) -> Any: ...
    def release_anywhere(self, conn: 'Connection') -> Any: ...
    def release_nowait(self, conn: 'Connection', endpoint: int) -> None: ...
    def discard(self, conn: 'Connection') -> Any: ...
    def close_pool(self, timeout: float | None) -> Any: ...
    def resize_pool(self, max_size: int, total_max_size: int) -> Any: ...
    def wait_until_filled(self, timeout: float | None) -> Any: ...
    def drain_pool(self, endpoint: int, idle_only: bool) -> Any: ...
    def idle_connections(self, endpoint: int) -> list['Connection']: ...
    def forget_endpoint(self, endpoint: int) -> Any: ...
    def within(self, endpoint: int, timeout: float | None, block: 'Callable[[Connection], Any]') -> Any: ...
    def forgetful(self, user: 'User', endpoint: int, timeout: float | None) -> Any: ...


class Connection:
    """A connection, and what the books say of it."""

    __slots__ = (
        'born',
        'busy',
        'condemned',
        'dead',
        'drained',
        'epoch',
        'fresh',
        'made_at',
        'number',
        'pending',
        'server',
        'state',
        'told',
        'trust',
        'untidy',
        'used_at',
        'user',
        'uses',
        'verdict',
    )

    def __init__(self, number: int, server: 'Server', trust: int, now: float, born: int):
        self.number = number
        # The step at which its connect began, and whether its server was drained since.
        self.born = born
        self.drained = born < server.drained_before
        self.server = server
        self.epoch = server.epoch
        self.state = OPEN
        self.user: User | None = None
        # How many users it has had.
        self.uses = 0
        # Which method of the manager is at work on it.
        self.busy = ''
        # It does not work, and nobody was told.
        self.dead = False
        # Why it must never be served again.
        self.condemned = ''
        # Whether on_connection_dead was called for it.
        self.told = False
        # Whose answer is still to be read from it.
        self.pending: User | None = None
        # Whether on_release is still to see to it, or was cut off.
        self.untidy = False
        # Whether it was created or checked since its last user.
        self.fresh = True
        # How many connections of its server had been found dead when it was last known to be alive, and when it was
        # found dead itself.
        self.trust = trust
        self.verdict = 0
        self.made_at = self.used_at = now

    def works(self) -> bool:
        return not self.dead and self.epoch == self.server.epoch and self.state == OPEN

    def is_open(self) -> bool:
        return self.state == OPEN

    def begin_detaching(self) -> bool:
        return self.change(OPEN, DETACHING)

    def undo_detaching(self) -> bool:
        return self.change(DETACHING, OPEN)

    def end_detaching(self) -> bool:
        return self.change(DETACHING, DETACHED)

    def change(self, old: int, new: int) -> bool:
        changes = self.state == old
        if changes:
            self.state = new
        return changes

    def __repr__(self) -> str:
        return f'<connection {self.number} to {self.server.number}>'


class Server:
    """An endpoint, and how it does."""

    __slots__ = (
        'attempts',
        'cap',
        'connected',
        'connecting',
        'down_until',
        'drained_before',
        'epoch',
        'failed_at',
        'full_until',
        'hanging_until',
        'noted',
        'number',
        'sockets',
        'tried_at',
        'verdicts',
    )

    def __init__(self, number: int, cap: int):
        self.number = number
        # How many connections it takes: others use it, too.
        self.cap = cap
        # How many it has, from the first packet of a connect to the last one of a dispose.
        self.sockets = 0
        self.epoch = 0
        self.down_until = 0.0
        self.hanging_until = 0.0
        self.full_until = 0.0
        # How many connects to it are under way.
        self.connecting = 0
        # How many connects to it have succeeded.
        self.connected = 0
        # In an outage that the pool knows of: the connects since. And when the last connect failed, or ended at all.
        self.attempts: Attempts | None = None
        self.failed_at = self.tried_at = -ENDLESS
        # How many of its connections were found dead, and how many of these findings the pool has taken note of.
        self.verdicts = 0
        self.noted = 0
        # The step from which on connects were not those that the last drain was for.
        self.drained_before = -1

    def fork(self) -> 'Server':
        """What it is to a forked child."""
        server = Server(self.number, self.cap)
        server.epoch = self.epoch
        server.down_until = self.down_until
        server.hanging_until = self.hanging_until
        server.full_until = self.full_until
        return server


class User:
    """Somebody who uses the pool."""

    __slots__ = ('calm_visits', 'cancels', 'doing', 'number', 'task')

    def __init__(self, number: int):
        self.number = number
        self.calm_visits = 0
        # How often it was cancelled since it learnt of that.
        self.cancels = 0
        self.doing = ''
        # The runtime's.
        self.task: Any = None

    def __repr__(self) -> str:
        return f'<user {self.number}>'


class World:
    """One pool and its surroundings.

    :param seed: all that happens follows from it
    :param runtime: runs it
    :param traffic: steps after which the faults stop, if the seed has not drawn less
    :param without: faults that do not happen
    """

    def __init__(self, seed: int, runtime: Runtime, traffic: int, without: Container[str]):
        self.seed = seed
        self.dice = dice = random.Random(seed)
        self.random = dice.random
        self.runtime = runtime
        self.nap = runtime.nap
        self.failure = ''
        self.trace = seed & 0xFFFFFFFF
        self.logged = ''

        choice = dice.choice
        count = choice((1, 1, 2, 2, 3, 4))
        self.max_size = max_size = choice((1, 1, 2, 2, 3, 4))
        self.total = total = dice.randint(max_size, max_size * count)
        self.settings: dict[str, Any] = {
            'idle_timeout': choice((0.3, 3.0, 60.0)),
            'max_lifetime': choice((60.0, 600.0, 3600.0)),
            'min_idle': dice.randint(0, max_size),
            'max_size': max_size,
            'total_max_size': total,
            'acquire_timeout': choice((None, 1.0, 10.0)),
            'background_collector': dice.random() < 0.5,
            'dispose_batch_size': choice((0, 0, 1, 3)),
            'dispose_timeout': choice((None, 0.5, 2.0)),
            'check_interval': choice((0.0, 0.0, 0.05, 5.0)),
            'check_timeout': choice((None, 0.2, 1.0)),
        }
        if dice.random() < 0.2:
            self.settings['idle_timeout'] = 0.3
            self.settings['max_lifetime'] = 2.0
        self.hooks = {
            name
            for name in ('check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'is_broken')
            if dice.random() < 0.6
        }
        self.checks = 'check_aliveness' in self.hooks
        # Drawn apart, so that the other worlds are what they were.
        lives = random.Random(seed ^ 0x5EED)
        self.max_uses: int = lives.choice((0, 0, 0, 1, 5))
        self.settings['max_uses'] = self.max_uses
        self.settings['lifetime_jitter'] = lives.choice((0.0, 0.0, 0.3))
        if self.checks:
            self.settings['keepalive_interval'] = lives.choice((0.0, 0.0, 0.1, 1.5))
        self.settings['_random'] = lives.random
        self.max_workers: int = random.Random(f'workers {seed}').choice((0, 0, 1, 2, 3))
        self.settings['max_workers'] = self.max_workers
        self.check_interval: float = self.settings['check_interval']
        self.has_spellings = dice.random() < 0.2
        self.rate: dict[str, float] = {}
        # A world of its own: those whose pool creates nothing itself are what they would be without this.
        apart = random.Random(f'growth {seed}')
        self.grows = apart.random() < 0.6
        self.taking = Taking(self)
        for fault in FAULTS:
            chooses = apart.choice if fault in GROWTH_FAULTS else choice
            if fault in TAKING_FAULTS:
                chooses = self.taking.dice.choice
            rate = chooses((0.0, 0.02, 0.05, 0.2))
            self.rate[fault] = 0.0 if fault in without else rate
            if fault in GROWTH_FAULTS:
                self.rate[fault] *= self.grows
        # The sizes that endpoints are warmed up to, as far as that is known: a signal handler may have raised.
        self.pins: dict[int, int | None] = {}
        self.pinners: dict[int, set[object]] = {}
        if self.grows:
            self.draw_growth(apart)
        self.taking.draw_settings()
        self.rate['fork'] *= CAN_BEGIN_ANEW
        if dice.random() < 0.25:
            self.rate['close'] = 0.0
        # Whether a signal handler has raised; and whether one has since nothing was to be closed.
        self.signals = False
        self.may_be_left = False
        self.creates_may_be_left = False
        self.pace = choice((0.0, 0.01, 0.1))
        self.patience = choice((20, 60, 200))
        self.turns_shuffled = dice.random() < 0.7
        self.traffic = min(dice.randint(300, 4000), traffic)
        caps = [choice((max_size, max_size, max_size, max(1, max_size - 1))) for _ in range(count)]
        self.servers = [Server(number, cap) for number, cap in enumerate(caps)]
        self.users = [User(number) for number in range(1, choice((2, 3, 5, 8, 12)) + 1)]

        # Those that this process has made, and how many others have.
        self.connections: list[Connection] = []
        self.inherited = 0
        # How many are being closed.
        self.closing = 0
        self.open: list[Connection] = []
        self.sockets = 0
        self.calm = False
        self.calm_at = 0.0
        self.stalled = 0.0
        # While the coroutine of a user is closed whom a fork has left behind: how many interruptions there were before.
        self.finalising_since: int | None = None
        self.living = 0
        # Those who are in close().
        self.closers: list[User] = []
        # How many calls change the limits of the pool just now.
        self.resizing = 0
        # Whether somebody has suspended the pool, or is about to.
        self.suspended = self.was_suspended = False
        # Since when nobody who asks is served, until somebody is about to resume it.
        self.suspended_at = ENDLESS
        # Whether a thread could not be started.
        self.threads_refused = False
        self.closed = False
        self.forcing = False
        # Whether the runtime is to fork before the next step.
        self.forking = False
        # How many are at work where nobody could catch what a hook raises.
        self.gentle = 0
        self.next_mischief = dice.randrange(1, 2 * self.patience)
        self.mischief = [fault for fault in MISCHIEF if self.rate[fault]]
        self.next_event = min(self.next_mischief, self.traffic)

    def draw_growth(self, dice: random.Random) -> None:
        """The parameters of a pool that creates connections itself."""
        choice = dice.choice
        settings = self.settings
        settings['create_in_background'] = dice.random() < 0.5
        settings['max_connecting'] = choice((None, 0, 1, 2))
        settings['min_size'] = choice((0, 0, 1, self.max_size))
        settings['create_timeout'] = choice((None, 0.2, 2.0))
        settings['wait_when_full'] = dice.random() < 0.4
        settings['reconnect_timeout'] = choice((0.0, 0.0, 0.05, 0.5, 5.0))
        if not settings['reconnect_timeout']:
            settings['fail_fast'] = dice.random() < 0.4
        elif dice.random() < 0.6:
            settings['reconnect_failed'] = self.reconnect_failed

    def time(self) -> float:
        # What a failed world has left behind may ask when the collector of garbage has cleared this.
        runtime = getattr(self, 'runtime', None)
        return 0.0 if runtime is None else runtime.now

    def fail(self, rule: str) -> None:
        """Note that a rule was broken. Not by raising: the pool may well catch what is raised here."""
        if not self.failure:
            self.failure = rule

    def note(self, event: int, conn: Connection) -> None:
        self.trace = (self.trace * 0x9E3779B1 + conn.number * 8 + event) & MASK

    # -- the manager ------------------------------------------------------------------------------------------------

    def latency(self, server: Server, timeout: float | None) -> Steps:
        """What a server takes to answer."""
        wait = self.random()
        if server.hanging_until > self.runtime.now:
            limit = ENDLESS if timeout is None else self.runtime.now + timeout
            # It may be woken before, and hang again.
            while server.hanging_until > self.runtime.now:
                if self.runtime.now >= limit:
                    raise TimeoutError('the server hangs')
                yield self.runtime.hang(min(server.hanging_until, limit) - self.runtime.now)
        elif wait < 0.4:
            yield self.nap(0.0)
        elif wait < 0.7:
            yield self.nap(0.0)
            yield self.nap(0.0)
            yield self.nap(0.0)
        elif wait < 0.8:
            seconds = wait * 0.02
            if timeout is not None and seconds > timeout:
                yield self.nap(timeout)
                raise TimeoutError('the server is slow')
            yield self.nap(seconds)

    def connect_again(self, server: Server) -> None:
        server.sockets += 1
        if server is self.servers[server.number]:
            self.sockets += 1

    def hang_up(self, server: Server) -> None:
        server.sockets -= 1
        # What ended only after a fork was of the other process.
        if server is self.servers[server.number]:
            self.sockets -= 1

    @coroutine
    def create(self, server: Server, timeout: float | None = None) -> Steps:
        server.sockets += 1
        self.sockets += 1
        if server.sockets > self.max_size:
            self.fail(f'server {server.number} sees {server.sockets} connections of at most {self.max_size}')
        if self.sockets > self.total:
            self.fail(f'the servers see {self.sockets} connections of at most {self.total}')
        trust = server.verdicts
        epoch = server.epoch
        born = self.runtime.step
        began = self.runtime.now
        attempt = object()
        self.judge_attempt(server, attempt)
        server.connecting += 1
        try:
            yield from self.latency(server, timeout)
            if server.down_until > self.runtime.now or server.epoch != epoch:
                raise Refused('the server takes nobody')
            if server.sockets > server.cap or (server.full_until > self.runtime.now and server.sockets > 1):
                raise Full('the server has too many clients already')
            chance = self.random()
            if chance < self.rate['refuse']:
                raise Refused('the server takes one less')
            if chance > 1.0 - self.rate['interrupt']:
                raise Interruption('in create')
        except GeneratorExit:
            self.end_attempt(server, attempt)
            self.hang_up(server)
            raise
        except BaseException as exc:
            # To close what was half open takes time, too.
            try:
                if self.random() < 0.3:
                    yield self.nap(0.0)
            finally:
                self.end_attempt(server, attempt)
                self.hang_up(server)
            server.failed_at = self.runtime.now
            exc.connected = server.connected  # type: ignore[attr-defined]
            if isinstance(exc, Refused):
                exc.args = (*exc.args, began)
            raise
        self.end_attempt(server, attempt)
        server.attempts = None
        server.connected += 1
        conn = Connection(self.inherited + len(self.connections) + 1, server, trust, self.runtime.now, born)
        self.connections.append(conn)
        self.open.append(conn)
        self.note(1, conn)
        return conn

    def judge_attempt(self, server: Server, attempt: object) -> None:
        """A connect begins. Where acquires wait for the end of an outage, there is one at a time in it."""
        now = self.runtime.now
        if server.attempts is None or now >= server.failed_at + MEMORY_OF_OUTAGES:
            server.attempts = None
            return
        if not server.attempts.begin(attempt):
            self.fail(f'in an outage of server {server.number}, there are two attempts at a time to connect to it')

    def end_attempt(self, server: Server, attempt: object) -> None:
        server.connecting -= 1
        server.tried_at = self.runtime.now
        if server.attempts is not None:
            server.attempts.end(attempt)

    def note_failure(self, endpoint: int, error: BaseException, outage_began: bool) -> None:
        """The pool has taken note of a connect that has failed."""
        server = self.servers[endpoint % 100]
        server.failed_at = server.tried_at = self.runtime.now
        if not outage_began or not self.settings.get('reconnect_timeout'):
            return
        # Not if another connect has succeeded before the pool came to tell of this one.
        if server.attempts is None and getattr(error, 'connected', -1) == server.connected:
            core = self.runtime.pool._core
            # Who was given a slot, and has not begun to connect. Which endpoints slots are reserved for the core only
            # tells in all.
            given = core.endpoint_stats(endpoint)['creating'] - server.connecting
            server.attempts = Attempts(max(given - (core.reserved if len(self.servers) == 1 else 0), 0))

    @coroutine
    def reconnect_failed(self, endpoint: int, exc: BaseException) -> Steps:
        if not isinstance(exc, (Refused, Interruption, TimeoutError)):
            self.fail(f'reconnect_failed for {endpoint} is given {exc!r}')
        if self.random() < 0.5:
            yield self.nap(self.random() * 0.5)
        self.maybe_raise('reconnect_failed')

    @coroutine
    def dispose(self, conn: Connection, timeout: float | None = None) -> Steps:
        server = conn.server
        self.judge_own(conn)
        # Its user was about to keep it, and close() was faster.
        self.taking.undo_detaching(conn)
        if conn.state != OPEN:
            self.fail(f'{conn!r} is disposed of twice')
        limit = self.settings['dispose_timeout']
        if limit is not None and not self.runtime.asynchronous and (timeout is None or timeout > limit):
            self.fail(f'the dispose of {conn!r} is given {timeout} s, and dispose_timeout is {limit} s')
        if not self.forcing:
            if conn.user is not None:
                self.fail(f'{conn!r} is disposed of while {conn.user!r} has it')
            if conn.busy:
                self.fail(f'{conn!r} is disposed of during {conn.busy}')
        self.note(2, conn)
        conn.state = CLOSING
        self.closing += 1
        self.open.remove(conn)
        # The pool takes note of a dead connection before it has it disposed of. A thread may be interrupted before
        # that, and the connection be closed for another reason.
        if self.runtime.asynchronous:
            server.noted = max(server.noted, conn.verdict)
        began, excused = self.runtime.now, self.stalled
        try:
            if self.random() < self.rate['slow_close']:
                seconds = self.random() * 4.0
                if timeout is not None and seconds > timeout:
                    yield self.nap(timeout)
                    raise TimeoutError('closing takes long')
                yield self.nap(seconds)
            else:
                yield from self.latency(server, timeout)
            self.maybe_raise('dispose')
        finally:
            self.note(3, conn)
            self.hang_up(server)
            if conn.state == CLOSING:
                conn.state = CLOSED
                self.closing -= 1
                taken = self.runtime.now - began - (self.stalled - excused)
                if limit is not None and taken > limit + PUNCTUALITY:
                    self.fail(f'the dispose of {conn!r} took {taken} s, and dispose_timeout is {limit} s')

    def maybe_raise(self, name: str) -> None:
        if self.gentle:
            return
        chance = self.random()
        if chance < self.rate['hook_raises']:
            raise Refused(name)
        if chance > 1.0 - self.rate['interrupt']:
            raise Interruption(name)

    def begin(self, name: str, conn: Connection, user: User | None = None) -> None:
        """A hook begins."""
        self.judge_own(conn)
        if conn.state != OPEN and not self.forcing:
            self.fail(f'{name} of {conn!r} after its dispose began')
        if conn.user is not user and not self.forcing:
            self.fail(f'{name} of {conn!r} while {conn.user!r} has it')
        if conn.busy and not self.forcing:
            self.fail(f'{name} of {conn!r} during {conn.busy}')
        conn.busy = name

    def judge_own(self, conn: Connection) -> None:
        """A method of the manager begins."""
        if conn.state == INHERITED:
            self.fail(f'{conn!r}, of the process that this one was forked from, is not left alone')

    @coroutine
    def check_aliveness(self, conn: Connection, timeout: float | None = None) -> Steps:
        self.begin('check_aliveness', conn)
        if conn.condemned == DRAINED:
            self.fail(f'{conn!r} is checked, which was drained')
        trust = conn.server.verdicts
        try:
            yield from self.latency(conn.server, timeout)
            self.maybe_raise('check_aliveness')
            alive = conn.works() or self.random() < self.rate['lie']
            if conn.condemned or conn.pending is not None:
                alive = False
            if alive:
                conn.fresh = True
                conn.untidy = False
                conn.trust = trust
                conn.used_at = self.runtime.now
            else:
                self.condemn(conn, 'found dead')
            return alive
        finally:
            conn.busy = ''

    def condemn(self, conn: Connection, why: str) -> None:
        if not conn.condemned:
            conn.condemned = why
        conn.server.verdicts += 1
        conn.verdict = conn.server.verdicts

    @coroutine
    def on_acquire(self, conn: Connection) -> Steps:
        self.begin('on_acquire', conn)
        self.judge_served(conn)
        try:
            chance = self.random()
            if chance < 0.05:
                yield self.nap(chance * 6.0)
            elif chance < 0.3:
                yield self.nap(0.0)
            self.maybe_raise('on_acquire')
        finally:
            conn.busy = ''
            conn.used_at = self.runtime.now

    @coroutine
    def on_release(self, conn: Connection) -> Steps:
        self.begin('on_release', conn)
        try:
            if self.random() < 0.5:
                yield self.nap(0.0)
            conn.pending = None
            if self.random() < self.rate['discard']:
                conn.condemned = 'discarded'
                raise DiscardConnection('in doubt')
            # An Exception leaves it to the manager whether the connection is tidy.
            conn.untidy = False
            try:
                self.maybe_raise('on_release')
            except Interruption:
                conn.untidy = True
                raise
        finally:
            conn.busy = ''
            conn.used_at = self.runtime.now

    @coroutine
    def is_broken(self, conn: Connection, exc: BaseException) -> Steps:
        self.begin('is_broken', conn)
        try:
            if self.random() < 0.3:
                yield self.nap(0.0)
            self.maybe_raise('is_broken')
            if conn.pending is not None or not conn.works():
                self.condemn(conn, 'broken')
                return True
            return False
        finally:
            conn.busy = ''

    @coroutine
    def on_connection_dead(self, conn: Connection) -> Steps:
        if conn.state != CLOSED:
            self.fail(f'on_connection_dead of {conn!r} before its dispose ended')
        if conn.told:
            self.fail(f'on_connection_dead of {conn!r} twice')
        conn.told = True
        conn.server.noted = max(conn.server.noted, conn.verdict)
        if self.random() < 0.5:
            yield self.nap(0.0)
        self.maybe_raise('on_connection_dead')

    def signal(self, where: str) -> Interruption:
        """Return what a signal handler raises."""
        self.signals = self.may_be_left = self.creates_may_be_left = True
        return Interruption(where)

    def log(self, message: str, *args: object) -> None:
        """What stands for the handlers of the log."""
        chance = self.random()
        if chance < 0.1:
            # A message that does not fit its arguments is a fault, too.
            self.logged = message % args
        if chance < self.rate['log_raises']:
            raise LogFailed(message)
        if chance > 1.0 - self.rate['signal'] * 0.2 and not self.gentle:
            raise self.signal('in a log handler')

    # -- the users --------------------------------------------------------------------------------------------------

    def judge_served(self, conn: Connection) -> None:
        """The pool has decided that somebody gets this connection."""
        if self.forcing:
            return
        if conn.condemned:
            self.fail(f'{conn!r} is served, which was {conn.condemned}')
        if conn.untidy:
            self.fail(f'{conn!r} is served, whose on_release did not come to its end')
        if self.checks and not conn.fresh:
            if self.check_interval <= 0:
                self.fail(f'{conn!r} is served without a check')
            elif conn.trust < conn.server.noted:
                self.fail(f'{conn!r} is served without a check, after another one was found dead')
            elif self.runtime.asynchronous and self.runtime.now - conn.used_at > self.check_interval + self.stalled:
                self.fail(f'{conn!r} is served without a check, {self.runtime.now - conn.used_at:g} s after its use')

    def take(self, user: User, conn: Connection, endpoint: int) -> None:
        """A user has got a connection."""
        server = conn.server
        self.note(4, conn)
        if server.number != endpoint % 100:
            self.fail(f'{user!r} wanted {endpoint} and got {conn!r}')
        if conn.user is not None:
            self.fail(f'{conn!r} is with {conn.user!r}, and now also with {user!r}')
        if conn.state != OPEN:
            self.fail(f'{conn!r} is served after its dispose began')
        if not self.forcing:
            if conn.busy:
                self.fail(f'{conn!r} is served during {conn.busy}')
            if conn.pending is not None:
                self.fail(f'{user!r} gets {conn!r}, which holds an answer to {conn.pending!r}')
        if 'on_acquire' not in self.hooks:
            self.judge_served(conn)
        conn.user = user
        conn.uses += 1
        self.taking.taken += 1
        self.taking.judge_holders(conn)
        if conn.uses > self.max_uses > 0:
            self.fail(f'{conn!r} is used {conn.uses} times, and max_uses is {self.max_uses}')

    def put(self, conn: Connection) -> None:
        """A user is about to give a connection back."""
        self.note(5, conn)
        conn.user = None
        if conn.drained:
            conn.condemned = conn.condemned or DRAINED
        conn.fresh = False
        conn.untidy = 'on_release' in self.hooks
        conn.used_at = self.runtime.now

    def use(self, user: User, conn: Connection) -> Steps:
        user.doing = 'using'
        chance = self.random()
        if not conn.works():
            raise BlockFailed('the connection is dead')
        if conn.pending is not None:
            self.fail(f'{user!r} would get an answer to {conn.pending!r}')
        conn.pending = user
        yield self.nap(0.0)
        yield self.nap(0.0 if chance < 0.6 else chance * 0.01)
        if conn.user is not user:
            self.fail(f'{user!r} uses {conn!r}, which {conn.user!r} has')
        if not conn.works():
            raise BlockFailed('the connection has died')
        if conn.pending is not user:
            self.fail(f'{user!r} gets an answer to {conn.pending!r}')
        conn.pending = None
        if chance < self.rate['long_hold']:
            yield self.nap(chance * 100.0)
        elif chance > 1.0 - self.rate['block_raises']:
            raise BlockFailed('the block')

    def visit(self, user: User) -> Steps:
        """Acquire, use, give back."""
        random = self.random
        server = self.servers[int(random() * len(self.servers))]
        endpoint = server.number
        if self.has_spellings and random() < 0.3:
            endpoint += 100
        timeout: float | None = None
        if self.calm:
            timeout = ENDLESS
        elif random() < self.rate['short_timeout']:
            timeout = self.dice.choice((0.0, 0.01, 0.3, 2.0))
        limit = self.settings['acquire_timeout'] if timeout is None else timeout
        user.doing = 'acquiring'
        began = self.runtime.now
        excused = self.stalled
        twice = random() < self.rate['release_twice'] and self.runtime.releases_at_once
        try:
            yield from self.visit_somehow(user, endpoint, timeout, (began, excused, limit), twice)
        except self.runtime.timeouts as exc:
            if self.grows and ('create_timeout' in str(exc) or str(exc) in SERVER_TIMEOUTS):
                # Of a connect of the pool's own.
                return
            if user.doing == 'acquiring' and limit is not None:
                self.judge_time((began, excused, limit))
                if isinstance(exc, PoolTimeout) and self.runtime.now < began + limit - 1e-6:
                    self.fail(f'a limit of {limit} s was over after {self.runtime.now - began} s')
            if self.calm and timeout == ENDLESS:
                self.fail(f'{exc!r} without a time limit')
        except ConnectionNotAcquired as exc:
            if not twice:
                self.fail(f'{exc!r} for {user!r}')

    def visit_somehow(
        self, user: User, endpoint: int, timeout: float | None, time: tuple[float, float, float | None], twice: bool
    ) -> Steps:
        inherited = self.inherited
        if self.taking.rate and self.random() < self.taking.rate:
            yield from self.taking.visit(user, endpoint, timeout, time)
        elif self.random() < 0.5:
            conn = yield from self.runtime.acquire(endpoint, timeout)
            self.judge_acquired(time)
            yield from self.use_and_release(user, conn, endpoint, twice)
        elif self.random() < self.rate['forget']:
            yield from self.runtime.forgetful(user, endpoint, timeout)
        else:

            def block(conn: Connection) -> Any:
                self.judge_acquired(time)
                return self.use_in_context(user, conn, endpoint, twice)

            yield from self.runtime.within(endpoint, timeout, block)
            if twice and not self.closed and inherited == self.inherited:
                self.fail('the end of a context whose connection was given back raised nothing')

    def judge_acquired(self, time: tuple[float, float, float | None]) -> None:
        """An acquire has succeeded."""
        if time[0] > self.suspended_at and self.runtime.releases_at_once:
            self.fail('an acquire is served that began when the pool was suspended')
        self.judge_time(time)

    def judge_time(self, time: tuple[float, float, float | None]) -> None:
        """An acquire has ended: was it in time?

        :param time: when it began, how long the process had stood still until then, and the time limit
        """
        began, excused, limit = time
        if limit is not None:
            late = self.runtime.now - began - (self.stalled - excused) - limit
            if late > LATENESS:
                self.fail(f'an acquire with a limit of {limit} s is {late} s late')

    def leave_tidy(self, conn: Connection, judged: bool) -> None:
        """Read what was left unread, where the manager has no hook that would."""
        if 'on_release' not in self.hooks and not judged:
            conn.pending = None

    def use_and_release(self, user: User, conn: Connection, endpoint: int, twice: bool = False) -> Steps:
        user.doing = 'using'
        self.take(user, conn, endpoint)
        try:
            yield from self.use(user, conn)
        finally:
            self.leave_tidy(conn, judged=False)
            if twice and not self.closed:
                try:
                    yield from self.runtime.release(conn, endpoint + 1)
                except ConnectionNotAcquired:
                    pass
                else:
                    if conn.state != INHERITED and not self.closed:
                        self.fail(f'{conn!r} was given back to another endpoint')
            user.doing = 'releasing'
            self.put(conn)
            yield from self.runtime.release(conn, endpoint)

    @coroutine
    def use_in_context(self, user: User, conn: Connection, endpoint: int, twice: bool) -> Steps:
        user.doing = 'using'
        self.take(user, conn, endpoint)
        raised = True
        try:
            yield from self.use(user, conn)
            raised = False
        finally:
            user.doing = 'leaving'
            self.leave_tidy(conn, judged=raised and 'is_broken' in self.hooks and not twice)
            self.put(conn)
            if twice:
                yield from self.runtime.release(conn, endpoint)

    def live(self, user: User) -> Steps:  # noqa: C901
        """What a user does all the time."""
        runtime = self.runtime
        while True:
            try:
                user.doing = 'thinking'
                pause = self.random() * 2.0
                yield self.nap(0.0 if pause < 1.0 or self.calm else pause * self.pace)
                if self.calm:
                    user.calm_visits += 1
                yield from self.visit(user)
            except ConnectionPoolClosedError:
                if not self.closed:
                    self.fail('a pool that is open says that it is closed')
                break
            except EndpointDown as exc:
                self.judge_down(exc)
            except TooManyRequests as exc:
                self.taking.judge_too_many(exc)
            except PoolSuspended:
                # Who is told may learn of it only when the pool is resumed already.
                if not self.was_suspended:
                    self.fail('a pool that was never suspended says that it is')
            except (Refused, BlockFailed) as exc:
                before = self.grows and isinstance(exc.args[-1], float) and exc.args[-1] < self.calm_at
                if self.calm and user.calm_visits > 1 and isinstance(exc, Refused) and not before:
                    self.fail(f'{exc!r} after the faults have stopped')
            except runtime.interruptions as exc:
                runtime.recover()
                self.judge_interrupted(user.doing, exc, user)
                if not user.cancels and not isinstance(exc, Interruption):
                    self.fail(f'{user!r}, {user.doing}, was cancelled by nobody')
                user.cancels = 0
                self.drop(exc)
            except GeneratorExit:
                raise
            except BaseException as exc:  # noqa: BLE001 - see there
                self.judge_error(user, exc)
                break
            if user.calm_visits > 2:
                break
        user.doing = 'gone'
        self.living -= 1

    def judge_down(self, exc: EndpointDown) -> None:
        """An acquire has failed because no connect succeeds."""
        server = self.servers[exc.endpoint % 100]
        if not self.settings.get('fail_fast'):
            self.fail(f'{exc!r} without fail_fast')
        # The attempt is under way, or its slot is given, or waits for a worker. Else it has ended, and a pause goes on.
        if self.runtime.pool._core.endpoint_stats(exc.endpoint)['creating']:
            return
        ended = self.runtime.now - server.tried_at
        if ended > LONGEST_PAUSE + LATENESS + self.stalled:
            self.fail(f'{exc!r}, and the last connect to {server.number} has ended {ended:g} s ago')

    def judge_error(self, user: User, exc: BaseException) -> None:
        """A user got an error that nobody should see."""
        if self.finalising_since not in {None, Interruption.count} and 'ignored GeneratorExit' in str(exc):
            # A signal handler raised meanwhile: see Tasks.finalise().
            raise exc
        self.fail(f'{user!r}, {user.doing}: {exc!r}')

    def drop(self, exc: BaseException) -> None:
        """Free what only the traceback refers to: what a finalizer raises then nobody would get to know."""
        self.gentle += 1
        exc.__traceback__ = exc.__context__ = None
        self.gentle -= 1

    def judge_interrupted(self, doing: str, exc: BaseException, user: User | None = None) -> None:
        """A call of the pool has raised what is no Exception. If a dispose did, the others are closed all the same.

        :param user: who has made the call
        """
        core = self.runtime.pool._core
        others = [other.doing for other in (*self.closers, *self.users) if other is not user]
        if self.resizing or {'releasing', 'leaving', 'closing'}.intersection(others):
            # Another call is about to close what it finds.
            return
        for_others = 0 if self.runtime.asynchronous else core.left_to_workers
        if str(exc) == 'dispose' and doing != 'acquiring' and core.doomed > for_others:
            self.fail(f'{doing} was interrupted by a dispose, and others that are to be closed are left to nobody')

    # -- what happens to all ----------------------------------------------------------------------------------------

    def make_event(self, step: int) -> int:
        """Have happen what happens between two steps.

        :return: the step after which this is to be called next
        """
        if step < self.traffic:
            self.make_mischief()
            self.next_event = min(self.next_mischief, self.traffic)
        elif self.next_event < self.traffic + STEPS_TO_END:
            self.calm_down()
            self.next_event = self.traffic + STEPS_TO_END
        else:
            self.fail(f'it does not come to rest within {STEPS_TO_END} steps')
        return self.next_event

    def make_mischief(self) -> None:
        self.next_mischief += self.dice.randrange(1, 2 * self.patience)
        if self.mischief:
            fault = self.dice.choice(self.mischief)
            getattr(self, f'make_{fault}')(self.dice.choice(self.servers))
        if self.random() < self.rate['fork'] * 0.1:
            self.make_fork()

    def make_cancel(self, server: Server) -> None:
        if self.random() < 0.1:
            self.runtime.disturb_worker()
            return
        for user in (*self.closers, *self.users):
            if self.random() < 0.3 and user.doing not in {'', 'gone'}:
                user.cancels += 1
                self.runtime.cancel(user)
                break

    def make_half_open(self, server: Server) -> None:
        if self.open:
            self.dice.choice(self.open).dead = True

    def make_hang(self, server: Server) -> None:
        server.hanging_until = self.runtime.now + self.dice.choice((0.5, 5.0, LONG))

    def make_outage(self, server: Server) -> None:
        server.down_until = self.runtime.now + self.dice.choice((0.05, 1.0))

    def make_full(self, server: Server) -> None:
        server.full_until = self.runtime.now + self.dice.choice((0.05, 0.5, 5.0))

    def make_pin(self, server: Server) -> None:
        size = self.dice.choice((0, 1, self.runtime.pool._core.max_size))
        self.runtime.spawn(lambda: self.warm_up(server.number, size))

    @contextmanager
    def pinning(self, number: int, size: int) -> Iterator[None]:
        """A call sets how many connections are kept. Which of two at the same time is the last nobody knows."""
        calls = self.pinners.setdefault(number, set())
        call = object()
        overlaps = bool(calls)
        calls.add(call)
        self.pins[number] = None
        try:
            yield
            if overlaps or call not in calls:
                calls.clear()
            elif len(calls) == 1:
                self.pins[number] = size
        finally:
            calls.discard(call)

    def warm_up(self, number: int, size: int) -> Steps:
        pool = self.runtime.pool
        timeout = self.dice.choice((0.0, 0.5, 5.0, None))
        try:
            # Somebody may have changed the limits, or closed the pool.
            size = min(size, pool._core.max_size)
            with self.pinning(number, size):
                pool.warm_up(number, size)
            if self.random() < 0.5:
                yield from self.runtime.wait_until_filled(timeout)
        except self.runtime.timeouts:
            if timeout is None:
                self.fail('who waits without a limit until the pool is filled gets a time-out')
        except ConnectionPoolClosedError:
            if not self.closed:
                self.fail('a pool that is open says that it is closed')
        except Interruption:
            self.runtime.recover()

    def make_unpin(self, server: Server) -> None:
        if self.random() < 0.5:
            self.runtime.spawn(lambda: self.forget_endpoint(server))

    def forget_endpoint(self, server: Server) -> Steps:
        self.resizing += 1
        try:
            with self.pinning(server.number, 0), self.draining(server, idle_only=False):
                yield from self.runtime.forget_endpoint(server.number)
        except self.runtime.interruptions:
            self.runtime.recover()
            self.begin_what_is_left()
        except Refused:
            # As in drain().
            pass
        finally:
            self.resizing -= 1

    def make_restart(self, server: Server) -> None:
        server.epoch += 1
        server.hanging_until = 0.0
        self.runtime.wake_hung()

    def make_stall(self, server: Server) -> None:
        seconds = self.dice.choice((0.001, 0.1, 3.0))
        self.stalled += seconds
        self.runtime.stall(seconds)

    def make_close(self, server: Server) -> None:
        if self.random() < 0.4 and not self.closers:
            # Two at once wait for the same end.
            for _ in range(self.dice.choice((1, 2))):
                self.spawn_closer()
            # Whoever ends a service may end its servers at the same time.
            if self.random() < self.rate['restart'] * 4.0:
                self.make_restart(server)

    def make_fork(self) -> None:
        # What happens in a finalizer cannot be ended.
        if not self.closed and not self.closers and not self.gentle:
            self.forking = True

    def go_on_in_child(self, runtime: Runtime, survivor: User | None = None) -> None:
        """The process has forked, and this is the child. Nobody of the parent is here, except one at most.

        :param runtime: the child's
        """
        self.forking = False
        self.runtime = runtime
        self.nap = runtime.nap
        for conn in self.connections:
            conn.state = INHERITED
            if conn.user is not survivor:
                conn.user = None
            conn.pending = None
        self.inherited += len(self.connections)
        self.connections.clear()
        self.open.clear()
        self.sockets = self.closing = 0
        self.taking.begin_anew()
        self.pinners.clear()
        for server in list(self.servers):
            self.servers[server.number] = server.fork()
        core = runtime.pool._core
        begin_anew(core)
        if self.suspended:
            # Who was to resume it has stayed behind.
            core.resume(runtime.now)
            self.suspended = False
            self.suspended_at = ENDLESS
        left = {**core.stats(), 'doomed': core.doomed, 'due': core.next_due()}
        limits = ('min_idle', 'max_size', 'total_max_size', 'min_size', 'max_waiting', 'max_workers')
        if any(count for name, count in left.items() if name not in limits):
            self.fail(f'the pool of a forked child is not empty: {left}')
        for index, user in enumerate(self.users):
            if user is not survivor and user.doing != 'gone':
                self.users[index] = User(user.number)
                self.start_user(self.users[index])

    def start_user(self, user: User) -> None:
        user.task = self.runtime.spawn(lambda: self.live(user))

    def make_resize(self, server: Server) -> None:
        if self.random() < 0.3:
            self.resize()

    def resize(self) -> None:
        dice = self.dice
        max_size = dice.randint(max(1, self.settings['min_idle'], self.settings.get('min_size', 0)), 4)
        total = dice.randint(max_size, max_size * len(self.servers))
        # The books only know the largest: a ticket of before may still be used.
        self.max_size = max(self.max_size, max_size)
        self.total = max(self.total, total)
        self.runtime.spawn(lambda: self.runtime.resize_pool(max_size, total))

    def make_drain(self, server: Server) -> None:
        if self.random() < 0.5:
            idle_only = self.random() < 0.3
            self.runtime.spawn(lambda: self.drain(server, idle_only))

    @contextmanager
    def draining(self, server: Server, idle_only: bool) -> Iterator[None]:
        """A call drains a server. What exists now is not served again, but to those who have got it already."""
        since = self.runtime.step
        idle = self.runtime.idle_connections(server.number)
        yield
        for conn in idle:
            conn.condemned = conn.condemned or DRAINED
        if not idle_only and server is self.servers[server.number]:
            server.drained_before = since
            for conn in self.open:
                conn.drained = conn.drained or (conn.server is server and conn.born < since)

    def drain(self, server: Server, idle_only: bool) -> Steps:
        self.resizing += 1
        try:
            # The pool may have forgotten the endpoint.
            with self.draining(server, idle_only), contextlib.suppress(ConnectionPoolNotFound):
                yield from self.runtime.drain_pool(server.number, idle_only)
        except self.runtime.interruptions:
            self.runtime.recover()
            self.begin_what_is_left()
        except Refused:
            # What an on_connection_dead or a dispose raises where no thread can be started.
            pass
        finally:
            self.resizing -= 1

    def make_suspend(self, server: Server) -> None:
        if self.random() < 0.3 and not self.suspended and not self.closed:
            self.suspended = self.was_suspended = True
            self.runtime.spawn(lambda: self.suspend(self.dice.choice((0.01, 0.5, 5.0)), self.random() < 0.3))

    def suspend(self, seconds: float, fail: bool) -> Steps:
        pool = self.runtime.pool
        try:
            pool.suspend(fail=fail)
        except ConnectionPoolClosedError:
            pass
        except self.runtime.interruptions:
            # Where it is told: the pool is suspended.
            self.runtime.recover()
        self.suspended_at = self.runtime.now
        while pool._core.is_suspended:
            try:
                yield self.nap(seconds)
                self.suspended_at = ENDLESS
                pool.resume()
            except self.runtime.interruptions:
                self.runtime.recover()
                self.begin_what_is_left()
        self.suspended_at = ENDLESS
        self.suspended = False

    def begin_what_is_left(self) -> None:
        """Call again what a signal handler has interrupted twice, and left to nobody."""
        begun = False
        while not begun:
            try:
                self.runtime.pool._begin_disposals()
                begun = True
            except self.runtime.interruptions:
                self.runtime.recover()
            except Refused:
                # What an on_connection_dead or a dispose raises where no thread can be started.
                begun = True

    def spawn_closer(self) -> None:
        closer = User(len(self.users) + len(self.closers) + 1)
        self.closers.append(closer)
        closer.task = self.runtime.spawn(lambda: self.close_early(closer))

    def close_early(self, closer: User) -> Steps:
        closer.doing = 'closing'
        timeout = self.dice.choice((None, 0.0, 0.5, 5.0))
        self.closed = True
        if timeout is not None:
            self.forcing = True
        began, excused = self.runtime.now, self.stalled
        made = len(self.connections)
        try:
            yield from self.runtime.close_pool(timeout)
            self.judge_closed(made, timeout)
            late = self.runtime.now - began - (self.stalled - excused) - (timeout or 0.0)
            if timeout is not None and late > LATENESS and self.runtime.asynchronous:
                self.fail(f'a close with a limit of {timeout} s is {late} s late')
        except self.runtime.interruptions as exc:
            self.runtime.recover()
            self.judge_interrupted('closing', exc, closer)
            if isinstance(exc, Interruption):
                # It has left to nobody what a signal handler kept it from closing, and another one may wait for that.
                yield from self.close_early(closer)
                return
        except Refused:
            # An on_connection_dead.
            pass
        self.closers.remove(closer)

    def judge_closed(self, made: int, timeout: float | None) -> None:
        """close() has returned.

        :param made: how many connections had been made when it was called
        """
        if self.runtime.asynchronous:
            # Of a task in whose making a signal handler has raised the pool does not know.
            if self.signals:
                return
            if left := self.runtime.left_behind():
                self.fail(f'close() has returned, and these are left in the loop: {left}')
        elif timeout is not None:
            # Another thread may be about to close them.
            return
        for conn in self.connections[:made]:
            if conn.state in {OPEN, CLOSING}:
                self.fail(f'close() has returned, and {conn!r} is open')
        if timeout is None and self.sockets and not self.forcing:
            self.fail(f'close() has returned, and {self.sockets} connections are open')

    def calm_down(self) -> None:
        """From here on nothing goes wrong but what went wrong before."""
        if self.calm:
            return
        self.calm = True
        self.calm_at = self.runtime.now
        for fault in FAULTS:
            self.rate[fault] = 0.0
        for server in self.servers:
            server.down_until = server.hanging_until = server.full_until = 0.0
            server.cap = 100
        self.runtime.wake_hung()

    def judge(self) -> None:
        """End the run if a rule was broken."""
        if self.failure:
            raise SimulationError(self.seed, self.runtime.step, self.failure)

    def judge_rest(self) -> None:
        """Everything waits. The pool's books balance, and nothing that could be done is left undone."""
        core = self.runtime.pool._core
        try:
            core.check_invariants()
        except AssertionError as exc:
            self.fail(str(exc))
        # A task that is to close is begun at once, and a thread closes one connection after the other, unless a signal
        # handler raises.
        if not core.doomed:
            self.may_be_left = False
        elif not self.may_be_left and not self.runtime.late_workers():
            busy = self.workers_are_busy()
            if core.doomed > core.left_to_workers if self.runtime.asynchronous else not (self.closing or busy):
                self.fail('a connection is to be closed, and nobody is about to')
            if core.left_to_workers and not self.threads_refused and not busy:
                self.fail('a connection is left to a worker, and there is none')
        if 0 < self.max_workers < core.jobs_at_work:
            self.fail(f'{core.jobs_at_work} jobs are at work, of at most {self.max_workers}')
        if self.closing and self.runtime.asynchronous and not self.signals:
            stats = core.stats()
            # What waits for a worker is not begun: no more may be at work at a time.
            begun = stats['idle'] + stats['acquired'] + stats['checking'] + core.doomed
            if begun != len(self.open):
                self.fail(f'{len(self.open)} connections are open, and only {begun} of them are not to be closed')
        if self.grows:
            self.judge_growth()
        if self.calm and self.runtime.now > self.calm_at + BOUND:
            self.fail(f'not served within {BOUND} s: {self.describe_users()}')

    def workers_are_busy(self) -> bool:
        """Whether what is left to workers waits for a job that is at work, or for a worker that calls a hook."""
        core = self.runtime.pool._core
        return (core.jobs_at_work > 0 and not core.jobs_to_begin) or self.runtime.workers_are_busy()

    def judge_growth(self) -> None:
        """Everything waits. Each slot has a connection, or somebody who connects; what the pool is to do is begun."""
        core = self.runtime.pool._core
        connecting = sum(server.connecting for server in self.servers)
        known = len(self.open) + self.closing + connecting + core.reserved
        # Who waits until the connection that he found dead is closed may have a slot already, and who closes himself,
        # because no thread can be started; and a worker that runs late may have taken one.
        holding = self.runtime.late_workers()
        if 'on_connection_dead' in self.hooks or self.threads_refused:
            holding += self.closing + core.doomed
        if not known <= core.size <= known + holding:
            self.fail(
                f'{core.size} slots are taken: {len(self.open)} connections are open, {self.closing} are being closed, '
                f'{connecting} created, {core.reserved} are to be'
            )
        if not core.reserved:
            self.creates_may_be_left = False
        elif not (self.creates_may_be_left or self.threads_refused or self.workers_are_busy()):
            self.judge_comer()

    def judge_comer(self) -> None:
        if not self.runtime.late_workers():
            self.fail('a connection is to be created, and nobody is about to')

    def judge_filled(self) -> None:
        """Nothing has gone wrong for long: each pinned endpoint has its connections, if the total limit has room. Where
        a create hangs, until its time limit, others may have to wait for its end."""
        core = self.runtime.pool._core
        if core.size >= core.total_max_size or self.threads_refused or not self.connections:
            return
        for number, size in self.pins.items():
            stats = core.endpoint_stats(number)
            if size is not None and stats['size'] < min(size, core.max_size) and not stats['creating']:
                self.fail(f'endpoint {number} is warmed up to {size} connections, and has {stats["size"]}')

    def kept_at_least(self, number: int) -> int:
        """How many connections of an endpoint may be kept that nobody uses."""
        pin = self.pins.get(number, 0)
        settings = self.settings
        least: int = max(settings['min_idle'], settings.get('min_size', 0), self.max_size if pin is None else pin)
        return least

    def judge_stuck(self) -> None:
        """Everything waits, and for nothing."""
        self.fail(f'nothing will ever wake {self.describe_users()}')

    def describe_users(self) -> list[str]:
        return [f'{user!r} {user.doing}' for user in (*self.closers, *self.users) if user.doing != 'gone']

    def end(self) -> Steps:
        """When all users are gone: what is due is closed in time, and then the pool."""
        self.calm_down()
        while self.suspended:
            yield self.nap(1.0)
        # The users were served in time; the end gets as much.
        self.calm_at = self.runtime.now
        if not self.closed:
            if self.pins:
                yield self.nap(TIME_TO_FILL)
                self.judge_filled()
            if self.runtime.has_collector():
                # And as long as the slowest dispose of before, for which the collector waits.
                yield self.nap(self.settings['idle_timeout'] + 6.0)
                for server in self.servers:
                    extra = sum(conn.server is server for conn in self.open) - self.kept_at_least(server.number)
                    # A signal handler of before may have ended the collector, which the next release would replace.
                    if extra > 0 and self.runtime.has_collector():
                        self.fail(f'{extra} connections to {server.number} outlive idle_timeout')
                if self.settings['max_lifetime'] <= 2.0:
                    yield self.nap(self.settings['max_lifetime'])
                    old = [
                        conn for conn in self.open if not self.pins or conn.made_at < self.runtime.now - LATENESS - 2.0
                    ]
                    if old and self.runtime.has_collector():
                        self.fail(f'{old} outlive max_lifetime')
            elif self.random() < 0.5:
                yield from self.release_what_is_due()
        self.closed = True
        # Of a thread whose start was interrupted the pool knows from when it is at work.
        before = self.runtime.left_behind()
        yield from self.runtime.close_pool(None)
        if self.sockets:
            self.fail(f'the pool is closed, and {self.sockets} connections are open')
        if left := [each for each in self.runtime.left_behind() if each in before]:
            self.fail(f'the pool is closed, and these are left: {left}')
        self.living -= 1

    def release_what_is_due(self) -> Steps:
        """Without a collector, the releases close what is due: each one connection at least."""
        idle_timeout, max_lifetime = self.settings['idle_timeout'], self.settings['max_lifetime']
        yield self.nap(max(idle_timeout, 2.0) + self.random() * 40.0)
        now = self.calm_at = self.runtime.now
        for _ in range(len(self.open) + 1):
            server = self.dice.choice(self.servers)
            conn = yield from self.runtime.acquire(server.number, ENDLESS)
            conn.used_at = self.runtime.now
            yield from self.runtime.release(conn, server.number)
        # What has begun to be closed has to end, and a thread that could be started only now closes the rest.
        yield self.nap(6.0)
        for server in self.servers:
            unused = [conn for conn in self.open if conn.server is server and conn.used_at < now - idle_timeout]
            if len(unused) > self.kept_at_least(server.number):
                self.fail(f'{unused} outlive idle_timeout, whatever is released')
        old = [conn for conn in self.open if conn.made_at < now - max_lifetime]
        if old:
            self.fail(f'{old} outlive max_lifetime, whatever is released')

    def judge_end(self) -> None:
        """Nothing runs any more."""
        pool = self.runtime.pool
        for conn in self.connections:
            if conn.state not in {CLOSED, DETACHED}:
                self.fail(f'{conn!r} was not disposed of')
        stats = pool.get_stats()
        if stats['size'] or stats['acquired'] or stats['waiting'] or stats['endpoints']:
            self.fail(f'a closed pool is not empty: {stats}')
        self.taking.judge_counts(stats)
        self.judge()

    def unraisable(self, report: Any) -> None:
        """What stands for sys.unraisablehook."""
        if not isinstance(report.exc_value, (LogFailed, Interruption)):
            self.fail(f'unraisable: {report.err_msg}: {report.object!r}: {report.exc_value!r}')


@contextmanager
def seeded_pauses(world: World) -> Iterator[None]:
    """Have a pool that is made draw the lengths of its pauses from the seed."""
    former = _parameters._random
    _parameters._random = random.Random(f'pauses {world.seed}').random
    try:
        yield
    finally:
        _parameters._random = former


@contextmanager
def surrounding(world: World) -> Iterator[None]:
    """Have the process treat the pool as the world wants it.

    Garbage is collected between two worlds only: when the collector runs depends on all that the process has allocated.
    """
    log = logging.getLogger('gcpool')
    levels = ('debug', 'info', 'warning', 'error', 'exception')
    hook, collects = sys.unraisablehook, gc.isenabled()
    sys.unraisablehook = world.unraisable
    for level in levels:
        setattr(log, level, world.log)
    # What the pool tells at a level that it has asked about before.
    log.isEnabledFor = lambda level: True  # type: ignore[method-assign]
    log.log = lambda level, message, *args, **about: world.log(message, *args)  # type: ignore[method-assign]
    gc.disable()
    try:
        yield
    finally:
        # After a failure it is not: it would be warned of when it is dropped with its connections.
        with contextlib.suppress(BaseException):
            world.runtime.pool._core.close()
        sys.unraisablehook = hook
        for level in (*levels, 'isEnabledFor', 'log'):
            delattr(log, level)
        if collects:
            gc.enable()


def simulate_worlds(
    simulate_world: Callable[[int, int, Container[str]], tuple[int, int]],
    seed: int,
    steps: int,
    without: Container[str],
) -> str:
    """Run worlds, that of the seed and those of the seeds after it, until at least so many steps were made.

    :param simulate_world: runs one, and returns its trace hash and the number of its steps
    :return: the trace hash of all: the same for the same arguments
    :raises SimulationError: when a rule was broken; it names the seed and the step of that world
    """
    trace = 0
    while steps > 0:
        world_trace, done = simulate_world(seed, steps, without)
        trace = (trace * 31 + world_trace) & MASK
        steps -= done
        seed += 1
        gc.collect(0)
    return f'{trace:016x}'
