"""What simulated users take from a pool, and give back, in other ways than by an acquire and a release of it.

They take what is ready (``try_acquire``), name no endpoint when they give a connection back, give it back without
waiting, have it closed (``discard``), or keep it (``detach``), also in the middle of a block. The parameters that
decide who waits and what is kept are drawn here, too, with the pools that keep nothing.

All that is drawn here has dice of its own: the other worlds are what they would be without this.
"""

import random
from collections.abc import Generator
from types import coroutine
from typing import TYPE_CHECKING, Any

from gcpool._parameters import PARAMETERS_OF_IDLE
from gcpool.exceptions import ConnectionNotAcquired, TooManyRequests

if TYPE_CHECKING:
    from tests.simulation.world import Connection, User, World

__all__ = ['Taking', 'parameters_of_null_pool']

Steps = Generator[Any, Any, Any]

# What becomes of a connection at the end of its use.
ENDS = ('release', 'nowait', 'discard', 'detach')
# And in a block, which then has nothing to give back.
ENDS_INSIDE = ('discard', 'detach')

# Seconds for which the pool remembers an outage in which nothing is attempted.
MEMORY_OF_OUTAGES = 10.0

# How many of the users who have these ways try to take what is ready, and how many have the rest inside of a block.
TRIES = 0.3
INSIDE = 0.3


def parameters_of_null_pool(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a pool that keeps no connections refuses."""
    return {name: value for name, value in settings.items() if name not in PARAMETERS_OF_IDLE}


class Taking:
    """The other ways of one world, and the books on them.

    :param world: whose users these are
    """

    def __init__(self, world: 'World'):
        self.world = world
        self.dice = dice = random.Random(f'taking {world.seed}')
        # How many of the visits are of this kind.
        self.rate: float = dice.choice((0.0, 0.0, 0.1, 0.3))
        # Whether the pool keeps no idle connections.
        self.keeps_nothing = dice.random() < 0.1
        # Whether the pool records who holds its connections.
        self.records_holders = random.Random(f'holding {world.seed}').random() < 0.2
        # How many connections users have kept, and how many they have had, since this process began.
        self.detached = self.taken = 0

    def judge_holders(self, conn: 'Connection') -> None:
        """Who holds the connections, as the pool says to the user who has just got one."""
        world, core = self.world, self.world.runtime.pool._core
        if not self.records_holders or world.forcing or world.closed:
            return
        who = {id(entry.conn): who for _, _, entry, _, who, *_ in core.holders()}
        if not conn.is_open():
            return  # the process was forked meanwhile: the connection is the parent's
        if who.get(id(conn)) is not core.current_holder():
            world.fail(f'{conn!r} is held by its user, and the pool says: by {who.get(id(conn))}')
        for other in world.open:
            if other.user is not None and other.is_open() and who.get(id(other)) is None:
                world.fail(f'{other!r} is held by {other.user!r}, and the pool does not say so')

    def draw_settings(self) -> None:
        """The parameters of the pool that belong to this."""
        if self.records_holders:
            self.world.settings['record_holders'] = True
        choice, settings = self.dice.choice, self.world.settings
        settings['order'] = choice(('lifo', 'lifo', 'fifo'))
        settings['keep'] = choice(('size', 'size', 'idle'))
        settings['max_waiting'] = choice((0, 0, 0, 1, 3))
        if self.keeps_nothing:
            # The pool refuses the first two; the books know them all the same.
            settings['idle_timeout'] = 0.0
            settings['background_collector'] = False
            settings['min_idle'] = settings['min_size'] = 0
            self.world.rate['pin'] = 0.0
            settings.pop('order')
            settings.pop('keep')
            settings.pop('keepalive_interval', None)

    # -- the users ----------------------------------------------------------------------------------------------------

    def visit(
        self, user: 'User', endpoint: int, timeout: float | None, time: tuple[float, float, float | None]
    ) -> Steps:
        """Use a connection, and end its use in one of these ways."""
        world, runtime, dice = self.world, self.world.runtime, self.world.dice
        chance = dice.random()
        if chance < TRIES:
            conn = self.try_acquire(endpoint)
            if conn is not None:
                yield from self.use_and_end(user, conn, endpoint, dice.choice(ENDS))
        elif chance < TRIES + INSIDE:
            ending = dice.choice(ENDS_INSIDE)

            def block(conn: 'Connection') -> Any:
                world.judge_acquired(time)
                return self.use_inside(user, conn, endpoint, ending)

            yield from runtime.within(endpoint, timeout, block)
        else:
            conn = yield from runtime.acquire(endpoint, timeout)
            world.judge_acquired(time)
            yield from self.use_and_end(user, conn, endpoint, dice.choice(ENDS))

    def use_and_end(self, user: 'User', conn: 'Connection', endpoint: int, ending: str) -> Steps:
        world = self.world
        user.doing = 'using'
        world.take(user, conn, endpoint)
        try:
            yield from world.use(user, conn)
        finally:
            world.leave_tidy(conn, judged=False)
            user.doing = 'releasing'
            yield from getattr(self, ending)(conn, endpoint)

    @coroutine
    def use_inside(self, user: 'User', conn: 'Connection', endpoint: int, ending: str) -> Steps:
        yield from self.use_and_end(user, conn, endpoint, ending)
        user.doing = 'leaving'

    def try_acquire(self, endpoint: int) -> 'Connection | None':
        """Take what is ready. It overtakes nobody, and nobody had to look at it before."""
        world, runtime = self.world, self.world.runtime
        core = runtime.pool._core
        waiting = core.endpoint_stats(endpoint)['waiting'] if runtime.releases_at_once else 0
        suspended = core.is_suspended and runtime.releases_at_once
        conn: Connection | None = runtime.pool.try_acquire(endpoint)
        if conn is None:
            return None
        if waiting:
            world.fail(f'{conn!r} is ready for a user, while {waiting} others wait')
        if suspended:
            world.fail(f'{conn!r} is ready for a user, although the pool is suspended')
        if 'on_acquire' in world.hooks or (world.checks and world.check_interval <= 0):
            world.fail(f'{conn!r} is ready for a user, although the manager is to be asked about it')
        return conn

    # -- the ends of a use --------------------------------------------------------------------------------------------

    def release(self, conn: 'Connection', endpoint: int) -> Steps:
        self.world.put(conn)
        yield from self.world.runtime.release_anywhere(conn)

    def nowait(self, conn: 'Connection', endpoint: int) -> Steps:
        self.world.put(conn)
        self.world.runtime.release_nowait(conn, endpoint)
        yield from ()

    def discard(self, conn: 'Connection', endpoint: int) -> Steps:
        """Have it closed, and wait for that."""
        world = self.world
        world.put(conn)
        conn.condemned = conn.condemned or 'discarded by its user'
        yield from world.runtime.discard(conn)
        if conn.is_open() and not world.closed:
            world.fail(f'discard() has returned, and {conn!r} is open')

    def detach(self, conn: 'Connection', endpoint: int) -> Steps:
        """Keep it. From here on the pool has nothing to do with it, and somebody else may have its slot."""
        world, pool = self.world, self.world.runtime.pool
        world.put(conn)
        self.begin_detaching(conn)
        try:
            pool.detach(conn)
        except ConnectionNotAcquired:
            if not world.closed:
                raise
            # close() closes it.
            self.undo_detaching(conn)
        except world.runtime.interruptions:
            if pool._core.entry_if_acquired(conn, endpoint) is None:
                self.end_detaching(conn)
            else:
                self.undo_detaching(conn)
                yield from world.runtime.release(conn, endpoint)
            raise
        else:
            self.end_detaching(conn)

    def begin_detaching(self, conn: 'Connection') -> None:
        # Before it is done: as soon as it is, somebody may connect.
        if conn.begin_detaching():
            self.world.open.remove(conn)
            self.world.hang_up(conn.server)

    def undo_detaching(self, conn: 'Connection') -> None:
        if conn.undo_detaching():
            self.world.open.append(conn)
            self.world.connect_again(conn.server)

    def end_detaching(self, conn: 'Connection') -> None:
        if conn.end_detaching():
            self.detached += 1

    # -- the rules ----------------------------------------------------------------------------------------------------

    def judge_too_many(self, exc: TooManyRequests) -> None:
        """An acquire was sent away, because too many wait."""
        limit = self.world.settings['max_waiting']
        if not limit:
            self.world.fail(f'{exc!r} without a limit')
        runtime = self.world.runtime
        waiting = runtime.pool._core.endpoint_stats(exc.endpoint)['waiting']
        # An acquire that comes when the pause of an outage is over has the first of those served that were too many.
        failed_at = self.world.servers[exc.endpoint % 100].failed_at
        if waiting < limit and runtime.asynchronous and runtime.now > failed_at + MEMORY_OF_OUTAGES:
            self.world.fail(f'{exc!r}, and {waiting} wait, of at most {limit}')

    def judge_counts(self, stats: dict[str, int]) -> None:
        """Nothing runs any more."""
        made = len(self.world.connections)
        if stats['created'] != made or stats['detached'] != self.detached:
            self.world.fail(f'{made} connections were made, and {self.detached} kept by their users: {stats}')
        if stats['disposed'] != made - self.detached:
            self.world.fail(f'{made - self.detached} connections were closed: {stats}')
        reasons = sum(count for name, count in stats.items() if name.startswith('closed_'))
        if reasons != stats['disposed']:
            self.world.fail(f'{reasons} connections were closed for a reason: {stats}')
        if not self.taken <= stats['acquires'] <= stats['asked']:
            self.world.fail(f'{self.taken} acquires have succeeded: {stats}')

    def begin_anew(self) -> None:
        """In a forked child."""
        self.detached = self.taken = 0
