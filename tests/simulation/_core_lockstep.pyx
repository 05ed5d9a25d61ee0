# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: binding=False, auto_pickle=False, freethreading_compatible=True
"""Asks the core random questions and compares its answers with those of a naive model, 500,000 times a second and more.

The core is used by its Python interface alone (``_core.pyi``), so this works with every build of it, and with whatever
stands in for it. The run is cut into *worlds*: in each a new core, with limits, timeouts, endpoints and rates of the
questions of its own, is asked for a while and then brought to its end. All times are simulated, all choices come from
the seed.

The driver is the facade: it does whatever a facade might do, at any time.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memset

import sysconfig

from gcpool._core import Waiter
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError
from tests.simulation.failure import SimulationError

include "_core_model.pxi"
include "_core_growth.pxi"

cdef enum:              # the questions
    ACQUIRE
    ASK_AGAIN
    CONNECT
    FAIL
    CANCEL
    GIVE_UP
    DROP
    BEGIN_CHECK
    END_CHECK
    FIND_DEAD
    DISCARD
    TAKE_OUT
    TAKE_READY
    MARK_UNCHECKED
    LEAVE_CHECK
    BEGIN_POOL_CHECK
    END_POOL_CHECK
    GIVE_UP_CHECKS
    RELEASE
    BEGIN_RELEASE
    END_RELEASE
    TAKE_DOOMED
    DISPOSE
    ADVANCE
    EXPIRE
    ASK_NEXT_DUE
    WATCH
    MISUSE
    TAKE_CREATE
    END_CREATE
    RUN_TIMERS
    PIN
    CHANGE_WORKERS
    OPEN
    DRAIN
    RESUME
    RESIZE
    SUSPEND
    DOOM_ACQUIRED
    CLOSE
    QUESTIONS

QUESTION_NAMES = (
    'acquire', 'ask again', 'connect', 'fail', 'cancel', 'give up', 'drop', 'begin check', 'end check', 'find dead',
    'discard', 'take out', 'take ready', 'mark unchecked', 'leave check', 'begin pool check', 'end pool check',
    'give up checks', 'release', 'begin release', 'end release', 'take doomed', 'dispose',
    'advance', 'expire', 'next due', 'watch', 'misuse', 'take create',
    'end create', 'run timers', 'pin', 'change workers', 'open', 'drain', 'resume', 'resize', 'suspend',
    'doom acquired', 'close',
)

# How often each is asked, compared with the others; a world multiplies it by 0 (it is switched off), 1, 2 or 4.
cdef int[QUESTIONS] COMMON = [
    24, 6, 12, 2, 3, 3, 1, 4, 8, 3,
    2, 3, 6, 1, 3, 6, 8, 1, 32, 4, 6, 12, 8,
    4, 3, 3, 2, 2, 12, 12, 6, 3, 1, 8, 2, 8, 1, 1, 1,
    1,
]

cdef enum:              # what an acquire must have to be picked
    ANY_ACQ = 0
    HAS_CONN = 1
    HAS_WAITED = 2
    IS_CHECKING = 4

cdef enum:
    LET_OTHERS_RUN = 4096       # steps
    LOOK_AT_ALL = 48            # steps from one full comparison to the next
    SHORTEST_WORLD = 64         # steps
    MOST_ACTIVE = 20            # acquires in progress
    KEPT_CONNS = 8              # that were given back, to give back once more
    REMEMBERED = 12             # questions that a failure names
    FEW = 4                     # connections in all
    SOME = 10
    MANY = 24
    NOBODY = -1

# Deadlines tie, and ties are in the order of release only where all releases share a counter: without the GIL they do
# not, and the time moves on between them. It is small enough to never add up to what is advanced.
cdef double TICK = 2.0 ** -20 if sysconfig.get_config_var('Py_GIL_DISABLED') else 0.0

cdef double[6] SECONDS = [0.5, 1.0, 2.0, 4.0, 6.0, 24.0]
cdef double[5] IDLE_TIMEOUTS = [4.0, 1.0, 8.0, 0.0, INFINITY]
cdef double[5] MAX_LIFETIMES = [24.0, 12.0, 60.0, 0.0, INFINITY]
cdef double[4] RECONNECT_TIMEOUTS = [0.0, 0.0, 0.05, 3.0]
cdef double[3] INTERVALS = [0.0, 0.5, INFINITY]


cdef class Endpoint:
    """They share ENDPOINT_HASHES; another object of the same number and spelling is equal."""

    cdef int number
    cdef int spelling       # NOBODY: what normalize() says

    def __hash__(self):
        return self.number % ENDPOINT_HASHES if self.spelling == NOBODY else self.spelling % 3

    def __eq__(self, other):
        return (
            isinstance(other, Endpoint)
            and self.number == (<Endpoint>other).number
            and self.spelling == (<Endpoint>other).spelling
        )

    def __repr__(self):
        return f'e{self.number}' if self.spelling == NOBODY else f'e{self.number}/{self.spelling}'


cdef Endpoint new_endpoint(int number, int spelling):
    cdef Endpoint endpoint = Endpoint.__new__(Endpoint)
    endpoint.number = number
    endpoint.spelling = spelling
    return endpoint


def normalize(Endpoint endpoint not None):
    return new_endpoint(endpoint.number, NOBODY)


cdef class Fault(Exception):
    """The core and the model differ."""


def by_number(Conn conn not None):
    return conn.number


def watcher_number(Watcher watcher not None):
    return watcher.number


cdef class Dice:
    """Random numbers (splitmix64), and the hash of what came of them."""

    cdef uint64_t state
    cdef uint64_t trace

    cdef inline uint64_t roll(self) noexcept:
        cdef uint64_t z
        self.state += 0x9E3779B97F4A7C15u
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu
        return z ^ (z >> 31)

    cdef inline int below(self, int limit) noexcept:
        return <int>(((self.roll() >> 32) * <uint64_t>limit) >> 32)

    cdef inline bint one_in(self, int count) noexcept:
        return self.below(count) == 0

    cdef inline void note(self, long long value) noexcept:
        cdef uint64_t z = (self.trace ^ <uint64_t>value) * 0xFF51AFD7ED558CCDu
        self.trace = z ^ (z >> 32)


cdef class World:
    """A core and the model of it, from their making to their end."""

    cdef Dice dice
    cdef object core
    cdef Model model
    cdef double now
    cdef int endpoint_count
    cdef int skew               # 0: all endpoints alike; else the first ones are asked for more often
    cdef int held_endpoint      # whose connections are seldom given back; NOBODY
    cdef int crowd              # nobody comes where more than so many wait
    cdef int haste              # of four acquires so many connect at once where they get a ticket
    cdef int bursts             # of eight questions so many are of the kind of the one before
    cdef bint deaf              # the collector cannot be told when something is due earlier
    cdef bint spelled           # the manager has a normalize()
    cdef bint may_pin
    cdef bint lives_vary        # min_size was set: when core connections are due depends on what else is in use
    cdef bint were_told         # in this step, the workers were told of the next timer
    cdef double told_retry      # when the one is due that they know of
    cdef double tick_time
    cdef list growing           # the pool's own creates that workers have begun
    cdef int spellings
    cdef list endpoints
    cdef list active            # acquires in progress
    cdef list releasing         # acquires whose release hook is running
    cdef list closing           # connections that somebody is closing
    cdef list given_back
    cdef list conns             # all that there ever were
    cdef list checking          # the connections that the pool checks
    cdef list watchers
    cdef int watches            # how many watchers there ever were
    cdef list notified
    cdef list told
    cdef long long wakes
    cdef int connects
    cdef unsigned char[256] questions
    cdef int last
    # What the question was about: looked at after it.
    cdef Acq asked_acq
    cdef Conn asked_conn
    cdef int asked_endpoint
    cdef bint look_at_all

    def __init__(self, Dice dice, object make_core):
        cdef Model model = Model.__new__(Model)
        self.dice = dice
        self.model = model
        model.max_size = 1 + dice.below(5)
        model.min_idle = dice.below(model.max_size + 1)
        # Where they are few, many wait; it takes many to have the core's heaps grow.
        model.total_max_size = 1 + dice.below(FEW if dice.one_in(2) else SOME if dice.one_in(2) else MANY)
        # Deadlines without an end tie, see TICK.
        model.idle_timeout = IDLE_TIMEOUTS[dice.below(4 if TICK else 5)]
        model.max_lifetime = MAX_LIFETIMES[dice.below(4 if TICK else 5)]
        if model.max_lifetime == 0 and not dice.one_in(4):
            model.max_lifetime = 24.0
        model.collects = dice.one_in(2)
        model.serves_oldest = dice.one_in(4)
        model.counts_idle_only = dice.one_in(4)
        model.max_waiting = 1 + dice.below(3) if dice.one_in(4) else 0
        model.max_workers = 1 + dice.below(4) if dice.one_in(4) else 0
        model.keeps_idle = not dice.one_in(10)
        model.max_uses = 1 + dice.below(5) if dice.one_in(4) else 0
        model.lifetime_jitter = 0.25 if dice.one_in(8) else 0.0
        model.opened = not dice.one_in(8)
        self.deaf = dice.one_in(8)
        self.may_pin = bool(model.keeps_idle) and model.max_lifetime > 0 and dice.one_in(4)
        self.tick_time = TICK
        self.told_retry = INFINITY
        self.growing = []
        if model.max_lifetime > 0 and dice.one_in(3):
            self.draw_growth()
        self.now = 0.0 if dice.one_in(2) else 100.5
        self.endpoint_count = MOST_ENDPOINTS if model.total_max_size > SOME else 1 + dice.below(MOST_ENDPOINTS)
        self.skew = dice.below(2)
        self.held_endpoint = dice.below(self.endpoint_count) if dice.one_in(2) else NOBODY
        self.crowd = (1 << dice.below(5)) - 1
        self.haste = dice.below(5)
        self.bursts = dice.below(7)
        self.spelled = dice.one_in(4)
        self.endpoints = [new_endpoint(number, NOBODY) for number in range(self.endpoint_count)]
        self.active = []
        self.releasing = []
        self.closing = []
        self.given_back = []
        self.conns = []
        self.checking = []
        self.watchers = []
        self.notified = []
        self.told = []
        self.last = ACQUIRE
        self.draw_rates()
        self.core = make_core(
            model.min_idle,
            model.max_size,
            model.total_max_size,
            model.idle_timeout,
            model.max_lifetime,
            model.collects,
            clock=self.read_clock,
            wake_collector=self.wake,
            normalize=normalize if self.spelled else None,
            max_waiting=model.max_waiting,
            max_workers=model.max_workers,
            serves_oldest=model.serves_oldest,
            counts_idle_only=model.counts_idle_only,
            keeps_idle=bool(model.keeps_idle),
            opened=bool(model.opened),
            max_uses=model.max_uses,
            lifetime_jitter=model.lifetime_jitter,
            random=self.read_luck,
            min_size=model.min_size,
            creates_in_background=bool(model.in_background),
            max_connecting=model.max_connecting,
            reconnect_timeout=model.reconnect_timeout,
            fails_fast=bool(model.fails_fast),
            keeps_growth=bool(model.grows),
        )
        self.core.set_workers(self.call_workers)

    def read_clock(self):
        return self.now

    def wake(self):
        self.wakes += 1
        return not self.deaf

    def read_luck(self):
        return self.model.luck

    def call_workers(self):
        self.were_told = True
        return bool(self.model.has_workers)

    cdef int draw_growth(self) except -1:
        cdef Dice dice = self.dice
        cdef Model model = self.model
        model.grows = True
        model.max_connecting = dice.below(3)
        model.in_background = dice.one_in(2)
        model.reconnect_timeout = RECONNECT_TIMEOUTS[dice.below(4)]
        model.fails_fast = model.reconnect_timeout == 0 and dice.one_in(3)
        if self.may_grow_to_minimum():
            model.min_size = dice.below(model.max_size + 1)
        self.lives_vary = model.min_size > 0
        # No two timers are due at the same time: it would be the core's choice whose turn it is.
        self.tick_time = 2.0 ** -20
        return 0

    cdef bint may_grow_to_minimum(self) noexcept:
        # What is closed as soon as it is there would be created for ever.
        return bool(self.model.keeps_idle) and self.model.max_lifetime > 0 and self.model.idle_timeout > 0

    cdef int draw_rates(self) except -1:
        cdef int[QUESTIONS] rates
        cdef int question, share, total = 0, place = 0
        for question in range(QUESTIONS):
            share = COMMON[question]
            if question >= RESIZE:      # less happens after these
                rates[question] = share if self.dice.one_in(4) else 0
            elif TAKE_CREATE <= question <= CHANGE_WORKERS and not self.may_ask_to_grow(question):
                rates[question] = 0
            elif question != ACQUIRE and self.dice.one_in(5):
                rates[question] = 0
            else:
                rates[question] = share << self.dice.below(3)
            total += rates[question]
        for question in range(QUESTIONS):
            share = (rates[question] * 256 + total - 1) // total
            while share > 0 and place < 256:
                self.questions[place] = question
                place += 1
                share -= 1
        while place < 256:
            self.questions[place] = RELEASE
            place += 1
        # The seldom ones stand last, where the rounding may have cut them off.
        for question in range(RESIZE, QUESTIONS):
            if rates[question]:
                self.questions[question] = question
        return 0

    cdef bint may_ask_to_grow(self, int question) noexcept:
        if question == PIN:
            return self.may_pin
        if question == CHANGE_WORKERS:
            return False        # the state machine knows pools without workers
        return self.model.grows or self.may_pin or question == RUN_TIMERS

    # -- choosing -----------------------------------------------------------------------------------------------------

    cdef inline void tick(self) noexcept:
        self.now += self.tick_time

    cdef Acq pick(self, int states, int needs):
        # One of the acquires in one of some states that has what it needs, all with a chance.
        cdef Acq acq
        cdef Py_ssize_t count = len(self.active)
        cdef Py_ssize_t start, i
        if count == 0:
            return None
        start = self.dice.below(<int>count)
        for i in range(count):
            acq = <Acq>self.active[(start + i) % count]
            if not states >> acq.state & 1:
                continue
            if needs & HAS_CONN and acq.conn is None:
                continue
            if needs & HAS_WAITED and not acq.has_waited:
                continue
            if needs & IS_CHECKING and not acq.checking:
                continue
            return acq
        return None

    cdef int choose_endpoint(self) except -1:
        cdef int first = self.dice.below(self.endpoint_count)
        cdef int second
        if not self.skew:
            return first
        second = self.dice.below(self.endpoint_count)
        return first if first < second else second

    cdef Endpoint spell(self, int number):
        # The object that stands for an endpoint, mostly the same one.
        if self.dice.below(8):
            return self.endpoints[number]
        if not self.spelled:
            return new_endpoint(number, NOBODY)
        self.spellings += 1
        return new_endpoint(number, self.spellings * 7 % 20)     # more of them than the core remembers

    cdef inline void about(self, Acq acq, Conn conn, int endpoint) noexcept:
        self.asked_acq = acq
        self.asked_conn = conn
        self.asked_endpoint = endpoint

    # -- acquiring ----------------------------------------------------------------------------------------------------

    cdef bint ask_acquire(self) except -1:
        cdef Acq acq
        cdef Endpoint spelling
        cdef int endpoint
        cdef object entry
        if len(self.active) >= MOST_ACTIVE or len(self.model.waiting) > self.crowd:
            return False
        endpoint = self.choose_endpoint()
        spelling = self.spell(endpoint)
        acq = Acq.__new__(Acq)
        acq.endpoint = endpoint
        acq.notified = self.notified
        acq.waits_from = INFINITY
        acq.waiter = Waiter(spelling)
        acq.waiter.arm(acq)
        self.active.append(acq)
        self.about(acq, None, endpoint)
        self.dice.note(endpoint)
        if self.dice.below(4):
            # Makes it known: try_acquire() leaves a spelling that was not seen before to request().
            self.core.endpoint_size(spelling)
            entry = self.core.try_acquire(spelling, self.now)
            if self.model.try_acquire(acq, self.now) != (entry is not None):
                raise Fault(f'try_acquire() gave {entry!r}, expected {acq!r}')
            if entry is not None:
                self.core.adopt(acq.waiter, entry)
                return True
        self.request(acq)
        if acq.state == TICKET:
            acq.conn.since = self.now
            self.core.begin_create(acq.waiter.held, self.now)
            if self.dice.below(4) < self.haste:
                self.connect(acq)
        return True

    cdef int request(self, Acq acq) except -1:
        cdef bint queued
        self.tick()
        self.model.request(acq, self.now)
        self.model.end_of_request(self.now)
        queued = self.core.request(acq.waiter, self.now)
        # Without workers it may have been served before the call has returned.
        if queued != (acq.state == WAITS) and not (queued and not self.model.has_workers):
            raise Fault(f'request() gave {queued}, expected {acq!r}')
        return 0

    cdef bint ask_again(self) except -1:
        cdef Acq acq = self.pick(1 << NOTHING, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, None, acq.endpoint)
        self.request(acq)
        return True

    cdef int connect(self, Acq acq) except -1:
        cdef Conn conn = acq.conn
        cdef bint served
        self.tick()
        if conn.entry is None:
            conn.entry = acq.waiter.held
        self.connects += 1
        self.conns.append(conn)
        self.asked_conn = conn
        served = self.model.created(acq, self.connects, self.now)
        self.differ(self.core.created(conn.entry, conn, self.now), served, 'created()')
        if not served:
            self.cancel(acq)
        return 0

    cdef bint ask_connect(self) except -1:
        cdef Acq acq = self.pick(1 << TICKET, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.connect(acq)
        return True

    cdef bint ask_fail(self) except -1:
        cdef Acq acq = self.pick(1 << TICKET, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        if self.model.knowns and self.dice.below(4):
            self.connect_failed(acq)
            return True
        self.model.create_failed(acq, self.now)
        self.core.create_failed(acq.waiter, self.now)
        self.leave(acq)
        return True

    cdef int connect_failed(self, Acq acq) except -1:
        # It goes on waiting, if it may, or ends.
        cdef object error = OSError('the connect of an acquire')
        cdef bint is_refusal = self.model.grows and self.dice.one_in(3)
        cdef bint has_time = self.dice.below(4) != 0
        cdef int news = connect_failed(self.model, acq, error, is_refusal, has_time, self.now)
        self.differ(
            self.core.connect_failed(acq.waiter, error, bool(is_refusal), bool(has_time), self.now),
            news,
            'connect_failed()',
        )
        if news & ASKS_AGAIN:
            self.asked_conn = None
            if self.dice.below(8):
                self.request(acq)
        else:
            self.cancel(acq)
        return 0

    cdef int leave(self, Acq acq) except -1:
        # It was served nothing: mostly that is its end, or it asks again later.
        if self.dice.below(4):
            self.cancel(acq)
        return 0

    cdef int cancel(self, Acq acq) except -1:
        cdef bint waited
        self.tick()
        waited = self.model.cancel(acq, self.now)
        self.differ(self.core.cancel(acq.waiter, self.now), waited, 'cancel()')
        self.end(acq)
        return 0

    cdef int end(self, Acq acq) except -1:
        self.active.remove(acq)
        acq.waiter = None
        return 0

    cdef bint ask_cancel(self) except -1:
        # Interrupted, wherever it is.
        cdef Acq acq = self.pick(-1, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.dice.note(acq.arrival)
        self.cancel(acq)
        return True

    cdef bint ask_give_up(self) except -1:
        # Its time is over, unless it was served in this very moment.
        cdef Acq acq = self.pick(-1, HAS_WAITED)
        cdef bint gone
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.dice.note(acq.arrival)
        gone = self.model.give_up(acq, self.now)
        self.differ(self.core.give_up(acq.waiter, self.now), gone, 'give_up()')
        if gone:
            self.leave(acq)
        return True

    cdef bint ask_drop(self) except -1:
        # Thrown away, whatever it holds. One that waited leaves its place to nobody.
        cdef Acq acq = self.pick(-1, ANY_ACQ)
        if acq is None:
            return False
        self.about(None, acq.conn, acq.endpoint)
        if acq.state == WAITS:
            self.model.leave_queue(acq)
            self.model.note_wanting(acq.endpoint)
            self.model.cancelled_count += 1
            acq.state = NOTHING
            forget_empty(self.model)
        else:
            acq.waits_from = INFINITY
            self.model.cancel(acq, self.now)
        self.end(acq)
        return True

    # -- checks -------------------------------------------------------------------------------------------------------

    cdef bint ask_begin_check(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.model.check_count += 1
        self.core.begin_check(acq.waiter)
        acq.outdated = False
        acq.checking = True
        acq.conn.check_pending = True
        return True

    cdef bint ask_end_check(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED, IS_CHECKING)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.core.end_check(acq.waiter)
        acq.checking = False
        acq.conn.suspect = acq.outdated
        acq.conn.check_pending = False
        return True

    cdef bint ask_find_dead(self) except -1:
        # The acquirer asks again, or is interrupted before that.
        cdef Acq acq = self.pick(1 << SERVED | 1 << REFUSED, HAS_CONN)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        acq.checking = False
        self.model.reject_dead(acq)
        self.core.reject_dead(acq.waiter)
        if self.dice.below(8):
            self.request(acq)
        return True

    cdef bint ask_discard(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED | 1 << REFUSED, HAS_CONN)
        if acq is None:
            return False
        self.about(None, acq.conn, acq.endpoint)
        self.discard(acq, acq.conn)
        self.end(acq)
        return True

    cdef int discard(self, Acq acq, Conn conn) except -1:
        cdef bint queue = self.dice.one_in(2)
        cdef bint asked = self.dice.one_in(2)
        cdef bint out
        if self.dice.one_in(2):
            self.core.distrust_endpoint(conn.entry)
            if not conn.closed_over:
                self.model.suspect_others(conn.endpoint)
        out = self.model.discard(acq, queue, self.now, 'discarded' if asked else 'broken')
        retire = self.core.retire_to_doomed if queue else self.core.retire
        self.differ(
            retire(conn.entry, self.now, discarded=asked),
            out,
            'retire_to_doomed() or retire()',
        )
        if out and not queue:
            if self.dice.one_in(2):
                self.dispose(conn)
            else:
                self.closing.append(conn)
        return 0

    cdef bint ask_take_out(self) except -1:
        # Its user has it closed, or keeps it. Of the releases that come then, that of its lease does nothing.
        cdef Acq acq = self.pick(1 << SERVED, HAS_CONN)
        cdef Conn conn
        cdef object entry
        cdef int how = self.dice.below(3)
        if acq is None:
            return False
        conn = acq.conn
        entry = conn.entry
        self.about(None, conn, acq.endpoint)
        if how == 0:
            self.model.detach(acq, self.now)
            self.differ(self.core.detach(entry, self.now), True, 'detach()')
        else:
            self.model.discard(acq, how == 1, self.now, 'discarded', by_user=True)
            self.differ(self.core.discard(entry, self.now, how == 1), True, 'discard()')
            if how == 2:
                self.closing.append(conn)
        self.differ(self.core.begin_release(entry, entry.lease_no), False, 'begin_release() of what was taken out')
        self.core.release(entry, self.now, entry.lease_no)
        self.refuses(ConnectionNotAcquired, self.core.release, (entry, self.now))
        self.refuses(ConnectionNotAcquired, self.core.discard, (entry, self.now))
        self.refuses(ConnectionNotAcquired, self.core.detach, (entry, self.now))
        self.end(acq)
        return True

    cdef bint ask_take_ready(self) except -1:
        cdef int endpoint = self.choose_endpoint()
        cdef Endpoint spelling = self.spell(endpoint)
        cdef double interval = INTERVALS[self.dice.below(3)]
        cdef Acq acq
        cdef object entry
        if len(self.active) >= MOST_ACTIVE:
            return False
        acq = Acq.__new__(Acq)
        acq.endpoint = endpoint
        acq.waits_from = INFINITY
        acq.notified = self.notified
        self.about(acq, None, endpoint)
        if self.model.closed or not self.model.opened:
            self.refuses(ConnectionPoolClosedError, self.core.take_ready, (spelling, self.now, interval))
            return True
        entry = self.core.take_ready(spelling, self.now, interval)
        self.differ(entry is not None, self.model.take_ready(acq, self.now, interval), 'take_ready()')
        if entry is not None:
            self.same_entry(entry, acq.conn, 'take_ready()')
            acq.waiter = Waiter(spelling)
            acq.waiter.arm(acq)
            self.active.append(acq)
            self.core.adopt(acq.waiter, entry)
        return True

    cdef bint ask_mark_unchecked(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED, ANY_ACQ)
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        self.core.mark_unchecked(acq.conn.entry)
        acq.conn.check_pending = True
        return True

    # -- checks by the pool -------------------------------------------------------------------------------------------

    cdef bint ask_leave_check(self) except -1:
        # An acquire does not check what it was served, and asks again, or is interrupted.
        cdef Acq acq = self.pick(1 << SERVED, ANY_ACQ)
        cdef bint left
        if acq is None:
            return False
        self.about(acq, acq.conn, acq.endpoint)
        left = self.model.leave_check_to_pool(acq, self.now)
        acq.checking = False
        self.differ(self.core.leave_check_to_pool(acq.waiter, self.now), left, 'leave_check_to_pool()')
        if left and self.dice.below(8):
            self.request(acq)
        elif left:
            self.cancel(acq)
        return True

    cdef bint ask_begin_pool_check(self) except -1:
        cdef Conn conn
        if self.model.to_check:
            self.begin_pool_check()
            return True
        if self.core.take_check() is not None:
            raise Fault('take_check() gave an entry, expected None')
        conn = self.conns[self.dice.below(<int>len(self.conns))] if self.conns else None
        if conn is None:
            return False
        self.about(None, conn, conn.endpoint)
        self.differ(self.core.begin_check_of_idle(conn.entry), conn.state == IDLE, 'begin_check_of_idle()')
        if conn.state == IDLE:
            conn.was_core = conn.is_core
            conn.state = CHECKING
            self.model.begin_pool_check(conn)
            self.checking.append(conn)
        return True

    cdef int begin_pool_check(self) except -1:
        cdef Conn conn = <Conn>self.model.to_check[0]
        cdef object entry = self.core.take_check()
        self.about(None, conn, conn.endpoint)
        if self.model.room_for_jobs(CHECK_JOB) <= 0:
            if entry is not None:
                raise Fault(f'take_check() gave {entry!r}, and no more checks may begin: expected None')
            return 0
        self.same_entry(entry, conn, 'take_check()')
        self.model.to_check.pop(0)
        conn.job = CHECK_JOB
        self.model.begin_pool_check(conn)
        self.checking.append(conn)
        return 0

    cdef bint ask_end_pool_check(self) except -1:
        cdef int answer = self.dice.below(4)
        if not self.checking:
            return False
        self.end_pool_check(<Conn>self.checking.pop(self.dice.below(<int>len(self.checking))), answer)
        return True

    cdef int end_pool_check(self, Conn conn, int answer) except -1:
        cdef object alive = None if answer == 0 else answer > 1
        cdef bint dead = self.model.end_pool_check(conn, answer > 0, answer > 1, self.now)
        self.about(None, conn, conn.endpoint)
        self.differ(self.core.end_check_by_pool(conn.entry, alive, self.now), dead, 'end_check_by_pool()')
        return 0

    cdef bint ask_give_up_checks(self) except -1:
        self.model.give_up_checks(self.now)
        self.core.give_up_checks(self.now)
        return True

    # -- what the pool creates itself ---------------------------------------------------------------------------------

    cdef bint ask_take_create(self) except -1:
        cdef Conn ticket
        cdef object entry
        if not self.model.turns and self.dice.below(8):
            return False
        ticket = take_create(self.model, self.now)
        entry = self.core.take_create(self.now)
        self.differ(entry is not None, ticket is not None, 'take_create()')
        if ticket is not None:
            if (<Endpoint>entry.endpoint).number != ticket.endpoint:
                raise Fault(f'take_create() gave {entry!r}, expected one of e{ticket.endpoint}')
            ticket.entry = entry
            ticket.since = self.now
            self.core.begin_create(entry, self.now)
            self.growing.append(ticket)
            self.about(None, ticket, ticket.endpoint)
        return True

    cdef bint ask_end_create(self) except -1:
        cdef Conn ticket
        if not self.growing:
            return False
        ticket = <Conn>self.growing.pop(self.dice.below(<int>len(self.growing)))
        self.end_create(ticket, self.dice.below(8))
        return True

    cdef int end_create(self, Conn ticket, int how) except -1:
        cdef object error
        cdef bint kept, is_refusal, is_hopeless
        cdef int news
        cdef Py_ssize_t size
        cdef Conn conn
        self.about(None, ticket, ticket.endpoint)
        if how >= 4:
            self.connects += 1
            self.conns.append(ticket)
            kept = grown(self.model, ticket, self.connects, self.now)
            self.differ(self.core.grown(ticket.entry, ticket, self.now), kept, 'grown()')
        elif how == 0:
            grow_cancelled(self.model, ticket, self.now)
            self.core.grow_cancelled(ticket.entry, self.now)
        else:
            error = OSError('a connect of the pool')
            is_refusal = how == 1 and self.model.grows
            is_hopeless = how == 2 and self.dice.one_in(4)
            if how == 3 and self.model.conns and self.dice.one_in(4):
                conn = <Conn>self.model.conns[self.dice.below(<int>len(self.model.conns))]
                if conn.number:     # the pool has it already
                    self.refuses(ValueError, self.core.grown, (ticket.entry, conn, self.now))
            news = grow_failed(self.model, ticket, error, is_refusal, is_hopeless, self.now)
            self.differ(
                self.core.grow_failed(ticket.entry, error, error, bool(is_refusal), self.now, bool(is_hopeless)),
                news,
                'grow_failed()',
            )
        size = self.core.size
        self.core.grow_cancelled(ticket.entry, self.now)     # it has ended once
        self.differ(self.core.size, size, 'the size after the second end of a create')
        return 0

    cdef bint ask_run_timers(self) except -1:
        # At their time, mostly.
        cdef int how = self.dice.below(8)
        cdef int endpoint
        cdef double timer = self.core.next_timer()
        if how and timer < INFINITY:
            self.now = max(self.now, timer)
        if how == 2 and self.model.grows:
            endpoint = self.choose_endpoint()
            retry_now(self.model, endpoint, self.now)
            self.core.retry_now(self.spell(endpoint), self.now)
        elif how == 1:
            if self.model.pass_time(self.now):
                self.model.dispatch(for_worker=True)
            end_step(self.model, self.now)
            self.core.expire_relief(self.now)
        else:
            run_timers(self.model, self.now, how > 2)
            self.core.run_timers(self.now, how > 2)
            self.were_told = True
        return True

    cdef bint ask_pin(self) except -1:
        cdef int endpoint = self.choose_endpoint()
        cdef int size = self.dice.below(4) if self.dice.one_in(2) else 0
        if self.model.closed:
            return False
        self.about(None, None, endpoint)
        pin(self.model, endpoint, size, self.now)
        self.core.pin(self.spell(endpoint), size, self.now)
        return True

    cdef bint ask_change_workers(self) except -1:
        self.model.has_workers = not self.model.has_workers or self.dice.one_in(2)
        self.model.must_call = True
        end_step(self.model, self.now)
        self.core.ask_workers()
        return True

    # -- giving back --------------------------------------------------------------------------------------------------

    cdef bint is_held(self, Acq acq) noexcept:
        return acq is not None and acq.endpoint == self.held_endpoint and self.dice.below(16) != 0

    cdef bint ask_release(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED | 1 << REFUSED, HAS_CONN)
        if self.is_held(acq):
            acq = self.pick(1 << SERVED | 1 << REFUSED, HAS_CONN)
        if acq is None or self.is_held(acq):
            return False
        self.release(acq)
        return True

    cdef int release(self, Acq acq) except -1:
        cdef Conn conn = acq.conn
        cdef bint closed_over = conn.closed_over
        cdef object found
        self.tick()
        self.about(None, conn, acq.endpoint)
        self.dice.note(conn.number)
        if self.dice.one_in(4):
            self.core.release(conn.entry, self.now)
        else:
            found = self.core.find_acquired(conn, self.spell(conn.endpoint))
            if not closed_over:
                self.same_entry(found, conn, 'find_acquired()')
                self.core.release(found, self.now)
            elif found is not None:
                raise Fault(f'find_acquired() gave {found!r} for {conn!r}, over which the pool was closed')
        self.model.release(acq, self.now)
        self.given_back.append(conn)
        if len(self.given_back) > KEPT_CONNS:
            self.given_back.pop(0)
        self.end(acq)
        return 0

    cdef bint ask_begin_release(self) except -1:
        cdef Acq acq = self.pick(1 << SERVED | 1 << REFUSED, HAS_CONN)
        cdef Conn conn
        cdef bint out
        if acq is None or self.is_held(acq):
            return False
        conn = acq.conn
        self.about(None, conn, acq.endpoint)
        out = self.model.begin_release(acq)
        self.differ(self.core.begin_release(conn.entry), out, 'begin_release()')
        if out:
            self.releasing.append(acq)
        self.end(acq)
        return True

    cdef bint ask_end_release(self) except -1:
        # The hook has ended, well or not; or the connection is unfit.
        if not self.releasing:
            return False
        self.end_release(<Acq>self.releasing.pop(self.dice.below(<int>len(self.releasing))), self.dice.below(4))
        return True

    cdef int end_release(self, Acq acq, int how) except -1:
        cdef Conn conn = acq.conn
        self.tick()
        self.about(None, conn, acq.endpoint)
        self.dice.note(conn.number)
        self.differ(self.core.is_checked_out(conn.entry), IS_CHECKED_OUT >> conn.state & 1, 'is_checked_out()')
        if how == 0:
            self.discard(acq, conn)
            return 0
        if how == 1:
            self.core.mark_unchecked(conn.entry)
            conn.check_pending = True
        self.core.release(conn.entry, self.now)
        self.model.release(acq, self.now)
        return 0

    # -- closing connections ------------------------------------------------------------------------------------------

    cdef bint ask_take_doomed(self) except -1:
        # By the caller who doomed it, by a worker, or by whoever closes for both, as on asyncio.
        cdef int taker = self.dice.below(3)
        cdef list doomed = self.model.doomed
        if taker == 1 or (taker == 2 and not doomed):
            doomed = self.model.doomed_for_worker
        if not doomed:
            if self.take_entry(taker) is not None:
                raise Fault('an entry was taken from the doomed, expected None')
            return False
        if taker == 1 and self.model.room_for_jobs(CLOSE_JOB) <= 0:
            if self.take_entry(taker) is not None:
                raise Fault('a worker took an entry, and no more closes may begin: expected None')
            return False
        self.take_doomed(taker, doomed, self.dice.below(8))
        return True

    cdef object take_entry(self, int taker):
        if taker == 0:
            return self.core.take_doomed_for_caller()
        return self.core.take_doomed_for_worker() if taker == 1 else self.core.take_doomed()

    cdef int take_doomed(self, int taker, list doomed, int how) except -1:
        cdef Conn conn = <Conn>doomed.pop(0)
        self.same_entry(self.take_entry(taker), conn, 'taking a doomed entry')
        self.about(None, conn, conn.endpoint)
        self.dice.note(conn.number)
        if taker == 1:
            conn.job = CLOSE_JOB
        if how == 0:                    # its dispose could not be begun
            conn.job = NO_JOB
            self.model.doomed_for_worker.append(conn)
            self.core.doom_again(conn.entry)
        elif how <= 3:
            self.closing.append(conn)
        else:
            self.dispose(conn)
        return 0

    cdef bint ask_dispose(self) except -1:
        cdef Conn conn
        if not self.closing:
            return False
        conn = <Conn>self.closing.pop(self.dice.below(<int>len(self.closing)))
        self.about(None, conn, conn.endpoint)
        self.dice.note(conn.number)
        self.dispose(conn)
        return True

    cdef int dispose(self, Conn conn) except -1:
        cdef bint by_worker = self.dice.one_in(2)
        conn.disposals += 1
        self.model.disposed(conn, self.now, by_worker)
        self.core.disposed(conn.entry, self.now, by_worker)
        return 0

    cdef int order_doomed(self) except -1:
        # In which order the core dooms what is in use, or what is due late, need not be the same in another run. So all
        # are taken, as they are allowed to come, and put back in the order of their numbers.
        cdef Conn conn
        cdef Conn next_one
        cdef object entry
        cdef list taken = []
        while self.model.doomed:
            entry = self.core.take_doomed_for_caller()
            next_one = None
            for conn in self.model.doomed:
                if conn.entry is entry:
                    next_one = conn
            if next_one is None or not self.model.may_be_closed_next(next_one):
                raise Fault(f'a caller took {entry!r}, that of {next_one!r}, out of {self.model.doomed!r}')
            self.model.doomed.remove(next_one)
            taken.append(next_one)
        if self.core.take_doomed_for_caller() is not None:
            raise Fault('take_doomed_for_caller() gave an entry, expected None')
        taken.sort(key=by_number)
        for conn in taken:
            conn.batch = 0
            self.core.doom_again(conn.entry)
            self.model.doomed_for_worker.append(conn)
        return 0

    # -- time ---------------------------------------------------------------------------------------------------------

    cdef bint ask_advance(self) except -1:
        self.now += SECONDS[self.dice.below(6 if self.dice.one_in(2) else 3)]
        return True

    cdef bint ask_expire(self) except -1:
        cdef int limit = self.dice.below(5)
        cdef bint for_worker = self.dice.one_in(2)
        cdef int count
        if self.lives_vary:
            return self.follow_doom_due(limit if limit else 1)
        count = self.model.doom_due(self.now, limit, for_worker)
        self.dice.note(count)
        self.differ(self.core.doom_due(self.now, limit, for_worker), count, 'doom_due()')
        return True

    cdef bint follow_doom_due(self, int limit) except -1:
        # With min_size, the core may be late: a life that ends before its time is noticed when it would have been
        # looked at. What it closes has to be due; extra connections are never late. Not while somebody wants a slot:
        # which close is for that one depends on the order.
        cdef Conn conn
        cdef Model model = self.model
        cdef list due = []
        cdef int count, found = 0
        cdef bint late = False
        cdef bint relief_ended
        if model.wanting_slots():
            return False
        relief_ended = model.pass_time(self.now)
        for conn in model.conns:
            if conn.state == IDLE and model.deadline(conn) <= self.now:
                due.append(conn)
        count = self.core.doom_due(self.now, limit, False)
        model.batches += 1
        for conn in due:
            if conn.entry.state_name == 'closing':
                found += 1
                model.doom(
                    conn,
                    model.lifetime_reason(conn) if conn.expires_at <= self.now else 'idle',
                    False,
                    model.batches,
                )
            elif not conn.is_core:
                late = True
        self.differ(count, found, 'doom_due()')
        if late and count < limit:
            raise Fault('an extra connection is due, and was not doomed')
        if relief_ended:
            model.dispatch(for_worker=False)
        end_step(model, self.now)
        self.order_doomed()
        return True

    cdef bint ask_next_due(self) except -1:
        # Not after every step: asking brings the queue in order, which a pool has to do without.
        cdef double due = self.model.next_due()
        cdef object answer = self.core.next_due()
        if self.lives_vary:
            return True
        if answer is None:
            if due != INFINITY:
                raise Fault(f'next_due() gave None, expected {due}')
        elif <double>answer != due:
            raise Fault(f'next_due() gave {answer}, expected {due}')
        self.dice.note(-1 if due == INFINITY else <long long>(due * 64))
        return True

    # -- the limits and the end ---------------------------------------------------------------------------------------

    cdef bint ask_resize(self) except -1:
        cdef int max_size = 1 + self.dice.below(5)
        cdef int min_idle = self.dice.below(max_size + 1)
        cdef int total_max_size = 1 + self.dice.below(SOME)
        cdef Model model = self.model
        cdef int min_size = model.min_size
        cdef dict limits = {}
        if self.dice.below(4):
            limits['max_size'] = max_size
        else:
            max_size = model.max_size
            min_idle = min(min_idle, max_size)
        if self.dice.below(4) or model.min_idle > max_size:
            limits['min_idle'] = min_idle
        else:
            min_idle = model.min_idle
        if self.dice.below(4):
            limits['total_max_size'] = total_max_size
        else:
            total_max_size = model.total_max_size
        limits['max_waiting'] = max_waiting = 1 + self.dice.below(3) if self.dice.one_in(4) else 0
        limits['max_workers'] = max_workers = 1 + self.dice.below(4) if self.dice.one_in(4) else 0
        if self.may_grow_to_minimum() and self.dice.one_in(2):
            min_size = self.dice.below(3)
        if min_size:
            self.lives_vary = True
            self.tick_time = 2.0 ** -20
        limits['min_size'] = min_size
        model.resize(self.now, min_idle, max_size, total_max_size, max_waiting, max_workers, min_size)
        self.core.resize(self.now, **limits)
        self.look_at_all = True
        return True

    cdef bint ask_drain(self) except -1:
        cdef int endpoint = self.dice.below(self.endpoint_count)
        cdef bint idle_only = self.dice.one_in(3)
        cdef bint known = self.model.drain(endpoint, self.now, idle_only) == 1
        if self.core.drain(self.endpoints[endpoint], self.now, idle_only) != known:
            raise AssertionError(f'drain of endpoint {endpoint}: expected {known}')
        self.look_at_all = True
        return True

    cdef bint ask_open(self) except -1:
        if self.model.opened and self.dice.below(8):
            return False
        self.differ(self.core.open(self.now), self.model.open(self.now), 'open()')
        self.look_at_all = True
        return True

    cdef bint ask_suspend(self) except -1:
        cdef bint fail = self.dice.one_in(3)
        if not self.model.closed:
            self.model.suspended = True
            self.model.failing = fail
            self.model.give_up_checks(self.now)
        self.differ(self.core.suspend(fail), not self.model.closed, 'suspend()')
        return True

    cdef bint ask_resume(self) except -1:
        if not self.model.suspended:
            return False
        self.model.resume(self.now)
        self.differ(self.core.resume(self.now), True, 'resume()')
        self.look_at_all = True
        return True

    cdef bint ask_doom_acquired(self) except -1:
        cdef int count = self.model.doom_acquired()
        self.differ(self.core.doom_acquired(), count, 'doom_acquired()')
        self.order_doomed()
        self.look_at_all = True
        return True

    cdef bint ask_close(self) except -1:
        self.model.close(self.now)
        self.core.close()
        self.look_at_all = True
        return True

    cdef bint ask_watch(self) except -1:
        # For a connection to be closed, or for the pool to be empty.
        cdef Watcher watcher
        cdef bint waits
        if self.watchers and self.dice.one_in(2):
            watcher = <Watcher>self.watchers.pop(self.dice.below(<int>len(self.watchers)))
            waits = watcher in self.model.watchers
            if watcher in self.model.fill_watchers:
                self.model.fill_watchers.remove(watcher)
                self.differ(self.core.unwatch(watcher.waiter), True, 'unwatch()')
                return True
            self.differ(self.core.unwatch(watcher.waiter), waits, 'unwatch()')
            if waits:
                self.model.watchers.remove(watcher)
            return True
        watcher = Watcher.__new__(Watcher)
        self.watches += 1
        watcher.number = self.watches
        watcher.told = self.told
        watcher.waiter = Waiter(None)
        watcher.waiter.arm(watcher)
        if self.model.knowns and self.dice.one_in(2):
            waits = not self.model.closed and bool(unfilled(self.model))
            self.differ(self.core.watch_filled(watcher.waiter), waits, 'watch_filled()')
            if waits:
                self.watchers.append(watcher)
                self.model.fill_watchers.append(watcher)
            return True
        if self.conns and self.dice.one_in(2):
            watcher.conn = <Conn>self.conns[self.dice.below(<int>len(self.conns))]
            waits = watcher.conn.state != GONE
            self.differ(self.core.watch_gone(watcher.waiter, watcher.conn.entry), waits, 'watch_gone()')
        else:
            waits = bool(self.model.conns)
            self.differ(self.core.watch_empty(watcher.waiter), waits, 'watch_empty()')
        if waits:
            self.watchers.append(watcher)
            self.model.watchers.append(watcher)
        return True

    # -- what is wrong, and changes nothing ---------------------------------------------------------------------------

    cdef bint ask_misuse(self) except -1:
        cdef int kind = self.dice.below(8)
        cdef Acq acq
        cdef Conn conn = None
        cdef Endpoint other
        cdef object waiter
        self.look_at_all = True
        if self.conns:
            conn = <Conn>self.conns[self.dice.below(<int>len(self.conns))]
        if kind == 0:
            other = self.spell(self.choose_endpoint())
            self.refuses(ConnectionNotAcquired, self.core.find_acquired, (object(), other))
            if self.core.entry_if_acquired(object(), other) is not None:
                raise Fault('entry_if_acquired() gave the entry of a stranger')
        elif kind == 1 and conn is not None and conn.state != GONE:
            other = new_endpoint(conn.endpoint + 1, NOBODY)
            self.refuses(ConnectionNotAcquired, self.core.find_acquired, (conn, other))
            if self.core.entry_if_acquired(conn, other) is not None:
                raise Fault('entry_if_acquired() gave the entry of another endpoint')
        elif kind == 2 and conn is not None and conn.state != GONE:
            acq = self.pick(1 << TICKET, ANY_ACQ)
            if acq is None:
                return False
            self.refuses(ValueError, self.core.created, (acq.conn.entry, conn, self.now))
        elif kind == 3:
            waiter = Waiter([])
            self.refuses(TypeError, self.core.request, (waiter, self.now))
            self.differ(self.core.cancel(waiter, self.now), False, 'cancel() of one that was not asked for')
        elif kind == 4:
            acq = self.pick(1 << WAITS | 1 << TICKET | 1 << SERVED, ANY_ACQ)
            if acq is None:
                return False
            self.refuses(RuntimeError, self.core.request, (acq.waiter, self.now))
            if acq.state == WAITS:
                self.refuses(RuntimeError, self.core.create_failed, (acq.waiter, self.now))
                self.refuses(RuntimeError, self.core.begin_check, (acq.waiter,))
        elif kind >= 5 and self.given_back:
            return self.release_twice(<Conn>self.given_back[self.dice.below(<int>len(self.given_back))], kind)
        else:
            return False
        return True

    cdef bint release_twice(self, Conn conn, int kind) except -1:
        cdef object entry = conn.entry
        cdef unsigned int former = entry.lease_no - 1
        if conn.state == ACQUIRED or conn.closed_over:
            # Somebody else has it by now. The core can tell only by the number of the lease that has ended.
            if former == 0:
                return False
            self.about(None, conn, conn.endpoint)
            self.refuses(ConnectionNotAcquired, self.core.begin_release, (entry, former))
            self.refuses(ConnectionNotAcquired, self.core.release, (entry, self.now, former))
            self.refuses(ConnectionNotAcquired, self.core.retire, (entry, self.now, former))
            self.core.distrust_endpoint(entry, former)
            self.core.mark_unchecked(entry, former)
            return True
        self.about(None, conn, conn.endpoint)
        self.refuses(ConnectionNotAcquired, self.core.find_acquired, (conn, self.spell(conn.endpoint)))
        self.refuses(ConnectionNotAcquired, self.core.begin_release, (entry,))
        if self.core.entry_if_acquired(conn, self.spell(conn.endpoint)) is not None:
            raise Fault(f'entry_if_acquired() gave {conn!r}')
        if conn.state != RELEASING:
            if kind == 5:
                self.refuses(ConnectionNotAcquired, self.core.release, (entry, self.now))
            elif kind == 6:
                self.refuses(ConnectionNotAcquired, self.core.retire, (entry, self.now))
            else:
                self.refuses(ConnectionNotAcquired, self.core.retire_to_doomed, (entry, self.now))
        return True

    cdef int refuses(self, object expected, object method, tuple arguments) except -1:
        cdef object answer
        try:
            answer = method(*arguments)
        except expected:
            return 0
        raise Fault(f'{method.__name__}{arguments!r} gave {answer!r}, expected {expected.__name__}')

    # -- comparing ----------------------------------------------------------------------------------------------------

    cdef int differ(self, object answer, long long expected, str question) except -1:
        if answer != expected:
            raise Fault(f'{question} gave {answer!r}, expected {expected}')
        return 0

    cdef int same_entry(self, object entry, Conn conn, str question) except -1:
        if entry is not conn.entry or entry is None:
            raise Fault(f'{question} gave {entry!r}, expected {conn.entry!r}, that of {conn!r}')
        return 0

    cdef int compare_acq(self, Acq acq) except -1:
        cdef object waiter = acq.waiter
        cdef object held
        cdef Conn conn = acq.conn
        if waiter is None:
            return 0
        held = waiter.held
        if conn is not None and conn.entry is None and held is not None:
            conn.entry = held       # a new ticket
        if (
            held is not (None if conn is None else conn.entry)
            or (conn is not None and held is None)
            or waiter.queued != (acq.state == WAITS)
            or waiter.refused != (acq.state == REFUSED)
            or waiter.turned_away != (acq.state == TURNED_AWAY)
            or waiter.has_ticket != (acq.state == TICKET)
            or waiter.failed != (acq.state == FAILED)
            or waiter.endpoint_is_down != (acq.state == DOWN)
        ):
            raise Fault(
                f'the waiter holds {held!r}, queued {waiter.queued}, refused {waiter.refused}, turned away '
                f'{waiter.turned_away}, has a ticket {waiter.has_ticket}; expected {acq!r} with {conn!r}'
            )
        if waiter.dead_entry is not (None if acq.dead_entry is None else acq.dead_entry.entry):
            raise Fault(f'the waiter has the dead {waiter.dead_entry!r}, expected {acq.dead_entry!r}')
        if (acq.state == FAILED or acq.state == DOWN) and waiter.error is not acq.error:
            raise Fault(f'{acq!r} has the error {waiter.error!r}, expected {acq.error!r}')
        if acq.state == SERVED:
            self.differ(self.core.still_holds(waiter), True, 'still_holds()')
        return 0

    cdef int compare_needs_check(self, Acq acq, double interval) except -1:
        if acq.state == SERVED:
            self.differ(
                self.core.needs_check(acq.waiter, self.now, interval),
                self.model.needs_check(acq, self.now, interval),
                f'needs_check() within {interval}',
            )
        return 0

    cdef int compare_conn(self, Conn conn) except -1:
        if conn.entry is not None and conn.entry.state_name != STATE_NAMES[conn.state]:
            raise Fault(f'{conn.entry!r} is {conn.entry.state_name}, expected {conn!r}')
        return 0

    cdef int compare_endpoint(self, int endpoint) except -1:
        cdef object core = self.core
        cdef Model model = self.model
        cdef object name = self.endpoints[endpoint]
        self.differ(core.endpoint_size(name), model.count(endpoint, IS_ANY), 'endpoint_size()')
        self.differ(core.endpoint_size(name, True), model.count(endpoint, IS_CHECKED_OUT), 'endpoint_size(acquired)')
        self.differ(core.endpoint_size(name, False), model.count(endpoint, IS_IDLE), 'endpoint_size(idle)')
        return 0

    cdef int compare_notified(self) except -1:
        cdef Py_ssize_t i
        cdef list expected = self.model.notified
        cdef list notified = self.notified
        cdef Acq acq
        if len(notified) != len(expected):
            raise Fault(f'{notified!r} were notified, expected {expected!r}')
        for i in range(len(expected)):
            acq = <Acq>expected[i]
            if notified[i] is not acq:
                raise Fault(f'{notified!r} were notified, expected {expected!r}')
            self.dice.note(acq.arrival)
            self.compare_acq(acq)
        expected.clear()
        notified.clear()
        return 0

    cdef int compare_told(self) except -1:
        cdef list told = self.told
        cdef list expected = self.model.told
        cdef Watcher watcher
        told.sort(key=watcher_number)
        expected.sort(key=watcher_number)
        if len(told) != len(expected) or any([a is not b for a, b in zip(told, expected)]):
            raise Fault(f'{len(told)} were told that something is gone, expected {len(expected)}')
        for watcher in told:
            self.watchers.remove(watcher)
        told.clear()
        expected.clear()
        return 0

    cdef int compare_step(self) except -1:
        # What the step was about, and the totals.
        cdef Model model = self.model
        cdef object core = self.core
        model.note_present()
        if self.notified or model.notified:
            self.compare_notified()
        if self.told or model.told:
            self.compare_told()
        if <Py_ssize_t>core.size != len(model.conns):
            raise Fault(f'the size is {core.size}, expected {len(model.conns)}')
        if <Py_ssize_t>core.doomed != len(model.doomed) + len(model.doomed_for_worker):
            raise Fault(f'{core.doomed} are doomed, expected {model.doomed!r} and {model.doomed_for_worker!r}')
        # One that could not be told is told again when the next connection is queued: how often is the core's choice.
        if not self.lives_vary and (self.wakes < model.wakes or (self.wakes > model.wakes and not self.deaf)):
            raise Fault(f'the collector was woken {self.wakes} times, expected {model.wakes}')
        if self.asked_acq is not None:
            self.compare_acq(self.asked_acq)
            if self.asked_acq.waiter is not None:
                self.compare_needs_check(self.asked_acq, INTERVALS[self.dice.below(3)])
        if self.asked_conn is not None:
            self.compare_conn(self.asked_conn)
            self.dice.note(self.asked_conn.number * 8 + self.asked_conn.state)
        if self.asked_endpoint != NOBODY:
            self.compare_endpoint(self.asked_endpoint)
        if model.knowns or self.were_told:
            self.compare_growth()
        self.dice.note(len(model.conns) * 64 + len(model.waiting) * 8 + <Py_ssize_t>core.doomed)
        return 0

    cdef int compare_growth(self) except -1:
        cdef Model model = self.model
        cdef object core = self.core
        cdef double retry = next_retry(model)
        self.differ(core.reserved, count_own(model, ALL, True), 'reserved')
        if <double>core.next_timer() != min(<double>core.relief_ends_at(), retry, model.refill_at):
            raise Fault(f'next_timer() gave {core.next_timer()}, expected {retry} or {model.refill_at}: {model.knowns}')
        if self.were_told:
            self.told_retry = retry
        self.were_told = False
        if retry < self.told_retry and not model.closed:
            raise Fault(f'an attempt is due at {retry}, and the workers were told {self.told_retry}')
        return 0

    cdef int judge_growth(self) except -1:
        # Pinned endpoints have their size, or what is in the way of that is known. What is remembered is the same.
        cdef Model model = self.model
        cdef Known known
        cdef int endpoint
        cdef bint fills = not (model.closed or model.suspended or model.refill_at < INFINITY or model.wanting_slots())
        fills = fills and model.opened and <int>len(model.conns) < model.total_max_size
        for endpoint in model.knowns:
            known = model.knowns[endpoint]
            if (
                fills
                and model.count(endpoint, IS_ANY) < min(known.pinned, model.max_size)
                and model.count(endpoint, 1 << CREATING) < (model.max_connecting if model.max_connecting else MAX_FILLS)
                and may_attempt(model, endpoint)
            ):
                raise Fault(f'e{endpoint} is pinned, and is not filled')
            error = known.error if known.outage is not None or known.failed_at >= self.now - 1 else None
            if self.core.last_connect_error(self.endpoints[endpoint], self.now - 1) is not error:
                raise Fault(f'the last error of e{endpoint} is not {error!r}')
        if not model.closed:
            found = sorted([((<Endpoint>e).number, has, size) for e, has, size in self.core.unfilled_endpoints()])
            if found != unfilled(model):
                raise Fault(f'unfilled_endpoints() gave {found}, expected {unfilled(model)}')
        return 0

    cdef int compare_all(self) except -1:
        cdef Model model = self.model
        cdef object core = self.core
        cdef Acq acq
        cdef Conn conn
        cdef int endpoint
        expected = {
            'size': len(model.conns),
            'idle': model.count(ALL, IS_IDLE),
            'in_use': model.count(ALL, IS_CHECKED_OUT),
            'acquired': model.count(ALL, IS_CHECKED_OUT),
            'creating': model.count(ALL, 1 << CREATING),
            'checking': model.count(ALL, 1 << CHECKING),
            'closing': model.count(ALL, IS_CLOSING),
            'min_idle': model.min_idle,
            'max_size': model.max_size,
            'total_max_size': model.total_max_size,
            'min_size': model.min_size,
            'max_waiting': model.max_waiting,
            'max_workers': model.max_workers,
            'asked': model.asked_count,
            'cancelled': model.cancelled_count,
            'refused': model.refused_count,
            'checks': model.check_count,
            'checks_failed': model.failed_check_count,
            'leaks': 0,
            'wait_ns': model.wait_ns,
            'create_ns': model.create_ns,
            'use_ns': int(model.use_time * 1e9),
            'waiting': len(model.waiting),
            'endpoints': model.count_endpoints(),
            'suspended': 1 if model.suspended else 0,
            'acquires': model.acquire_count,
            'created': model.created_count,
            'create_errors': model.create_error_count,
            'dead': model.dead_count,
            'broken': model.broken_count,
            'disposed': model.disposed_count,
            'waits': model.wait_count,
            'timeouts': model.timeout_count,
            'too_many': model.too_many_count,
            'detached': model.detached_count,
            **{'closed_' + reason: count for reason, count in model.closed_counts.items()},
        }
        stats = core.stats()
        if abs(stats['use_ns'] - expected['use_ns']) <= 1:      # a sum of floats, in another order
            expected['use_ns'] = stats['use_ns']
        held = max([self.now - (<Conn>conn).since for conn in model.conns if IS_CHECKED_OUT >> (<Conn>conn).state & 1],
                   default=0.0)
        if abs(stats.pop('longest_held') - held * 1e9) > 1:
            raise Fault(f'longest_held is not {held}')
        if stats != expected:
            raise Fault(f'stats() gave {stats}, expected {expected}')
        counts = [stats.histograms[name].count for name in ('wait', 'create', 'use')]
        if counts != [model.waits_timed, model.creates_timed, model.uses_timed]:
            raise Fault(f'the histograms count {counts}')
        if core.closed != model.closed:
            raise Fault(f'closed is {core.closed}, expected {model.closed}')
        if core.opened != model.opened:
            raise Fault(f'opened is {core.opened}, expected {model.opened}')
        for endpoint in range(self.endpoint_count):
            self.compare_endpoint(endpoint)
        for acq in self.active:
            self.compare_acq(acq)
            for endpoint in range(3):
                self.compare_needs_check(acq, INTERVALS[endpoint])
        for conn in self.conns:
            self.compare_conn(conn)
        core.check_invariants()
        self.judge()
        if model.knowns:
            self.judge_growth()
        return 0

    cdef int judge(self) except -1:
        # DESIGN.md, section 2, by its numbers: of the model, and so of the core, which is the same.
        cdef Model model = self.model
        cdef Conn conn
        cdef Acq acq
        cdef int endpoint
        for endpoint in range(self.endpoint_count):
            if model.count(endpoint, IS_ANY) > model.max_size and not model.shrunk:
                raise Fault(f'1: e{endpoint} has more than {model.max_size} connections')
        if len(model.conns) > model.total_max_size and not model.shrunk:
            raise Fault(f'1: there are more than {model.total_max_size} connections')
        for acq in self.active:
            if acq.state == SERVED and (acq.conn.holder is not acq or acq.conn.state != ACQUIRED or acq.conn.disposals):
                raise Fault(f'2: {acq!r} holds {acq.conn!r} of {acq.conn.holder!r}')
        for conn in self.conns:
            if conn.disposals != (conn.state == GONE and not conn.detached):
                raise Fault(f'3: {conn!r} was disposed of {conn.disposals} times')
        for acq in model.waiting:
            if model.next_idle(acq.endpoint) is not None and not model.suspended:
                raise Fault(f'4: {acq!r} waits beside an idle connection')
        if model.wanting_slots() and len(model.conns) < model.total_max_size and not model.suspended:
            raise Fault('4: somebody waits beside a free slot')
        return 0

    # -- the course of things -----------------------------------------------------------------------------------------

    cdef bint ask(self, int question) except -1:
        # Whether there was somebody to ask it about.
        if question == ACQUIRE:
            return self.ask_acquire()
        if question == RELEASE:
            return self.ask_release()
        if question == TAKE_DOOMED:
            return self.ask_take_doomed()
        if question == DISPOSE:
            return self.ask_dispose()
        if question == CONNECT:
            return self.ask_connect()
        if question == ASK_AGAIN:
            return self.ask_again()
        if question == FAIL:
            return self.ask_fail()
        if question == CANCEL:
            return self.ask_cancel()
        if question == GIVE_UP:
            return self.ask_give_up()
        if question == DROP:
            return self.ask_drop()
        if question == BEGIN_CHECK:
            return self.ask_begin_check()
        if question == END_CHECK:
            return self.ask_end_check()
        if question == FIND_DEAD:
            return self.ask_find_dead()
        if question == DISCARD:
            return self.ask_discard()
        if question == TAKE_OUT:
            return self.ask_take_out()
        if question == TAKE_READY:
            return self.ask_take_ready()
        if question == MARK_UNCHECKED:
            return self.ask_mark_unchecked()
        if question == LEAVE_CHECK:
            return self.ask_leave_check()
        if question == BEGIN_POOL_CHECK:
            return self.ask_begin_pool_check()
        if question == END_POOL_CHECK:
            return self.ask_end_pool_check()
        if question == GIVE_UP_CHECKS:
            return self.ask_give_up_checks()
        if question == BEGIN_RELEASE:
            return self.ask_begin_release()
        if question == END_RELEASE:
            return self.ask_end_release()
        if question == EXPIRE:
            return self.ask_expire()
        if question == ASK_NEXT_DUE:
            return self.ask_next_due()
        if question == WATCH:
            return self.ask_watch()
        if question == MISUSE:
            return self.ask_misuse()
        if question == TAKE_CREATE:
            return self.ask_take_create()
        if question == END_CREATE:
            return self.ask_end_create()
        if question == RUN_TIMERS:
            return self.ask_run_timers()
        if question == PIN:
            return self.ask_pin()
        if question == CHANGE_WORKERS:
            return self.ask_change_workers()
        if question == OPEN:
            return self.ask_open()
        if question == DRAIN:
            return self.ask_drain()
        if question == SUSPEND:
            return self.ask_suspend()
        if question == RESUME:
            return self.ask_resume()
        if question == RESIZE:
            return self.ask_resize()
        if question == DOOM_ACQUIRED:
            return self.ask_doom_acquired()
        if question == CLOSE:
            return self.ask_close()
        return self.ask_advance()

    cdef int step(self) except -1:
        # One random question, and what is to be seen of its answer.
        cdef int question = self.last
        cdef int tries = 0
        self.model.luck = (self.model.luck + 0.381966) % 1.0
        self.tick()
        self.about(None, None, NOBODY)
        self.look_at_all = False
        if self.dice.below(8) >= self.bursts:
            question = self.questions[self.dice.below(256)]
        self.last = question
        while not self.ask(question):
            tries += 1
            self.last = question = self.questions[self.dice.below(256)] if tries < 8 else ADVANCE
        self.dice.note(question)
        self.compare_step()
        if self.look_at_all:
            self.compare_all()
        return question

    cdef int settle(self) except -1:
        cdef int rounds = 0
        # Whatever the driver has at hand comes to its end, and what is asked for is served: in some order.
        while self.releasing:
            self.end_release(<Acq>self.releasing.pop(), 2)
            self.compare_step()
        while (
            self.checking
            or self.closing
            or self.model.to_check
            or self.model.doomed
            or self.model.doomed_for_worker
            or self.model.turns
            or self.growing
        ):
            self.tick()
            rounds += 1
            if rounds > 10_000:
                raise Fault(f'what is closed is created again, without an end: {self.model.conns}')
            if self.checking:
                self.ask_end_pool_check()
            elif self.closing:
                self.ask_dispose()
            elif self.growing:
                self.end_create(<Conn>self.growing.pop(), 7)
            elif self.model.turns:
                self.ask_take_create()
            elif self.model.to_check:
                self.begin_pool_check()
            elif self.model.doomed:
                self.take_doomed(0, self.model.doomed, 7)
            else:
                self.take_doomed(1, self.model.doomed_for_worker, 7)
            self.compare_step()
        return 0

    cdef int serve_all(self) except -1:
        # DESIGN.md 2.4, as liveness: when the clients only give back what they have, each round serves somebody, until
        # nobody waits. No time passes.
        cdef Acq acq
        cdef int rounds = 4 + 2 * <int>len(self.active) + 8 * <int>len(self.model.knowns)
        while self.active:
            if rounds == 0:
                raise Fault(f'though all is given back, these are still not served: {self.active!r}')
            rounds -= 1
            if self.model.knowns and next_retry(self.model) < INFINITY:
                self.ask_run_timers()       # an outage ends only if somebody tries
                self.compare_step()
            self.settle()
            for acq in self.active[:]:
                self.about(acq, acq.conn, acq.endpoint)
                if acq.state == TICKET:
                    self.connect(acq)
                elif acq.state == NOTHING:
                    self.request(acq)
                elif acq.conn is not None:
                    self.release(acq)
                elif acq.state == REFUSED or acq.state >= TURNED_AWAY:
                    self.cancel(acq)
                else:
                    continue
                self.compare_step()
        self.settle()
        self.compare_all()
        return 0

    cdef int take_idle(self) except -1:
        # What is idle comes in the order of the model.
        cdef int endpoint
        cdef Acq acq
        cdef object entry
        cdef list taken = []
        for endpoint in range(self.endpoint_count):
            while True:
                acq = Acq.__new__(Acq)
                acq.endpoint = endpoint
                entry = self.core.try_acquire(self.endpoints[endpoint], self.now)
                if self.model.try_acquire(acq, self.now) != (entry is not None):
                    raise Fault(f'try_acquire() gave {entry!r}, expected {acq!r}')
                if entry is None:
                    break
                self.same_entry(entry, acq.conn, 'try_acquire()')
                taken.append(acq)
        for acq in taken:
            self.tick()
            self.core.release(acq.conn.entry, self.now)
            self.model.release(acq, self.now)
        return 0

    cdef int finish(self) except -1:
        # Everything comes to its end, and nothing is lost.
        cdef Acq acq
        cdef Conn conn
        self.about(None, None, NOBODY)
        self.model.has_workers = True
        if not self.model.opened:
            self.ask_open()
            self.compare_step()
        self.ask_resume()
        self.compare_step()
        self.compare_all()
        if self.dice.below(4):
            self.serve_all()
        if self.dice.one_in(2):
            self.take_idle()
            self.compare_all()
        if self.dice.one_in(2):
            self.ask_next_due()
        if self.dice.one_in(2):
            self.now += 30.0
            self.ask_expire()
            self.compare_step()
        if not self.model.closed and self.dice.one_in(2):
            self.ask_close()
            self.compare_step()
            self.compare_all()
        while self.active:
            acq = <Acq>self.active[self.dice.below(<int>len(self.active))]
            self.about(acq, acq.conn, acq.endpoint)
            self.cancel(acq)
            self.compare_step()
        self.settle()
        if not self.model.closed:
            self.ask_close()
            self.compare_step()
        self.settle()
        self.about(None, None, NOBODY)
        self.compare_step()
        self.compare_all()
        stats = self.core.stats()
        if (stats['size'], stats['endpoints'], stats['waiting']) != (0, 0, 0) or self.model.conns:
            raise Fault(f'at the end there should be nothing left: {stats}')
        if stats['disposed'] + stats['detached'] != self.connects or stats['created'] != self.connects:
            raise Fault(f'3: {self.connects} connections were made: {stats}')
        for conn in self.conns:
            if conn.disposals != (not conn.detached) or conn.entry.state_name != 'gone':
                raise Fault(f'3: {conn!r} was disposed of {conn.disposals} times: {conn.entry!r}')
        if self.watchers:
            raise Fault('everything is gone, and somebody was not told')
        if self.core.next_due() is not None:
            raise Fault('next_due() of an empty pool is not None')
        self.forget()
        return 0

    cdef int forget(self) except -1:
        # What refers to itself in a ring must not wait for a collection.
        cdef Conn conn
        for conn in self.conns:
            conn.entry = None
            conn.holder = None
        self.core = None
        return 0


def simulate(seed, long long steps, make_core):
    """Ask random questions.

    :param seed: any int
    :param steps: how many questions; those that bring a world to its end are not counted
    :param make_core: what is called as PoolCore
    :return: the hash of all questions and answers
    :raises SimulationError: the core and the model differ
    """
    cdef Dice dice = Dice.__new__(Dice)
    cdef World world = None
    cdef long long step = 0, rest
    cdef int question, i
    cdef int[REMEMBERED] recent
    cdef str where = ''
    memset(recent, 0xFF, sizeof(recent))
    dice.state = <uint64_t>(seed & 0xFFFF_FFFF_FFFF_FFFF)
    dice.trace = dice.state
    try:
        while step < steps:
            world = World(dice, make_core)
            rest = min(SHORTEST_WORLD << dice.below(4), steps - step)
            where = ''
            while rest > 0:
                rest -= 1
                step += 1
                question = NOBODY
                question = world.step()
                recent[step % REMEMBERED] = question
                if question == CLOSE:
                    rest = min(rest, SHORTEST_WORLD)
                if step % LOOK_AT_ALL == 0:
                    world.compare_all()
                if step % LET_OTHERS_RUN == 0:
                    with nogil:     # a thread that watches the time
                        pass
                    PyErr_CheckSignals()
            where = ', at the end of a world'
            world.finish()
    except Exception as exc:
        # What is wrong with the core may end the process when the world goes. The error has to be told.
        Py_INCREF(world)
        told = f'{exc}' if isinstance(exc, Fault) else f'{type(exc).__name__}: {exc}'
        before = [recent[i % REMEMBERED] for i in range(step + 1, step + 1 + REMEMBERED)]
        names = ', '.join([QUESTION_NAMES[number] for number in before if number >= 0])
        asked = QUESTION_NAMES[world.last]
        raise SimulationError(seed, step, f'{told}{where} (at: {asked}; before: {names})') from exc
    return f'{dice.trace:016x}'
