# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, auto_pickle=False
# cython: freethreading_compatible=True
"""The compiled core: the state machine of a connection pool, and the hot path of both facades.

``PoolCore`` decides and does no I/O: it never blocks, never calls a connection manager, runs no user code while it
holds a lock, and is told the time. A facade asks it (request, created, failed, release, cancel, expired, close), and
carries out what it decided: connects for a *ticket*, waits for a *waiter* to be notified, closes what is *doomed*.

``SyncPool`` and ``AsyncPool`` are the compiled bases of the facades: acquire, release and the context manager as long
as nothing has to be waited for.
"""

import inspect
import logging
import os
import sys

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject, PyObject_Hash
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.float cimport DBL_MAX
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memset

cimport cython

from asyncio import CancelledError
from asyncio import coroutines as asyncio_coroutines
from asyncio import _get_running_loop as running_loop_or_none
from asyncio import get_running_loop as running_loop
from numbers import Real
from types import CoroutineType

from gcpool.exceptions import (
    ConnectionNotAcquired,
    ConnectionPoolClosedError,
    DiscardConnection,
    EventLoopMismatch,
)

__all__ = [
    'AsyncConnectionContext',
    'AsyncPool',
    'EndpointPool',
    'Entry',
    'IndexedHeap',
    'MISSING',
    'PoolCore',
    'SyncConnectionContext',
    'SyncPool',
    'Waiter',
    'monotonic',
]

# How many spellings of one endpoint are known at a time, besides the one that normalize() gives.
cdef enum:
    MAX_SPELLINGS = 8

cdef enum:          # Entry.state
    CREATING        # a ticket: the slot is reserved, its holder is connecting
    IDLE
    ACQUIRED
    RELEASING       # still out, its on_release hook is running
    CLOSING         # doomed or being disposed of; it keeps its slot until that has ended
    GONE

cdef enum:          # Waiter.state
    FRESH
    QUEUED
    SERVED
    REFUSED         # the pool is closed
    CANCELLED

# The end of a lifetime without end: after all others, and yet a deadline, so that the connection can be evicted.
cdef double NEVER = DBL_MAX

# How many later arrivals, for each connection that there may be, overtake somebody who waits at another endpoint before
# that one is given a connection that they would have been handed.
cdef enum:
    PATIENCE = 8

# Seconds for which, and up to twice as long, a connection that is being closed is taken to be help for those who wait.
cdef double HELP_TIME = 1.0

STATES = ('creating', 'idle', 'acquired', 'releasing', 'closing', 'gone')

cdef object MISSING_ = type('_Missing', (), {'__repr__': lambda self: 'MISSING', '__slots__': ()})()
MISSING = MISSING_
cdef object get_running_loop = running_loop


def monotonic():
    """Seconds on the pool's time line: the system's monotonic clock, exact."""
    return gcp_monotonic()


include "_tables.pxi"
include "_heap.pxi"
include "_log.pxi"


# ---------------------------------------------------------------------------------------------------------------------
# Entries, endpoint pools, waiters
# ---------------------------------------------------------------------------------------------------------------------

cdef object NOTHING = type('_Nothing', (), {'__slots__': ()})()     # the connection of a ticket


@cython.final
@cython.no_gc_clear
cdef class Entry(HeapMember):
    """The pool's record of one connection; while it is being created: the ticket to do so."""

    def __cinit__(self):
        self.conn_ = NOTHING
        self.state = CREATING
        self.heap_key = INFINITY

    @property
    def conn(self):
        """The connection. AttributeError while it is being created."""
        if self.conn_ is NOTHING:
            raise AttributeError('the entry has no connection yet')
        return self.conn_

    @property
    def endpoint(self):
        """Where the connection leads. AttributeError if nobody was served the entry."""
        if self.pool is None:
            raise AttributeError('the entry belongs to no endpoint yet')
        return self.pool.endpoint

    @property
    def state_name(self):
        """One of creating, idle, acquired, releasing, closing, gone."""
        return STATES[self.state]

    @property
    def turn_count(self):
        """How often the connection was acquired."""
        return self.turn

    @property
    def is_broken(self):
        """Whether its holder said that it is unfit (:py:meth:`break_`)."""
        return bool(self.broken)

    def break_(self):
        """Have the next release dispose of it. Called by its holder."""
        self.broken = True

    def __repr__(self):
        return f'<Entry {STATES[self.state]} at {id(self):#x}>'


@cython.final
@cython.no_gc_clear
cdef class Spelling:
    """Another spelling of an endpoint, as far as the manager's ``normalize`` is concerned."""


@cython.final
@cython.no_gc_clear
cdef class EndpointPool(HeapMember):
    """The entries and waiters of one endpoint."""

    def __repr__(self):
        return f'<EndpointPool of {self.endpoint!r}, size {self.size}, {self.waiting} waiting>'


@cython.final
@cython.no_gc_clear
cdef class Waiter:
    """One acquire in progress: it waits in an endpoint's queue, or holds the entry or the ticket that it was served.

    Whoever made it passes it to :py:meth:`PoolCore.cancel` when the acquire fails, whatever it holds then.
    """

    def __init__(self, object endpoint):
        if self.spare is not None or self.core is not None:
            raise RuntimeError('a waiter is for one acquire: expected a new one')
        self.endpoint = endpoint
        self.spare = Entry()
        self.state = FRESH

    def __dealloc__(self):
        # Whoever made it cancels it; this is for one that was dropped all the same. Its endpoint pool may have nobody
        # else: it must be forgotten before it goes with it.
        cdef EndpointPool ep = self.pool
        if self.state == QUEUED and ep is not None and ep.generation == self.core.generation:
            gcp_lock(&self.core.lock)
            gcp_lock(&ep.lock)
            self.core.dequeue(ep, <void *>self)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.core.lock)
        elif self.core is not None and self.entry is not None and self.entry.state == CREATING:
            self.core.fail(self.entry, None)
        if self.own_head != NULL:
            self.core.disown(self)

    @property
    def queued(self):
        """Whether it waits. It has to be notified before it looks again."""
        return self.state == QUEUED

    @property
    def refused(self):
        """Whether the pool was closed, be it over what the waiter was served before it looked."""
        return self.state == REFUSED or (self.entry is not None and self.entry.forced)

    @property
    def held(self):
        """The entry that it was served, or None."""
        return self.entry

    @property
    def served(self):
        """The entry that it was served. RuntimeError when it holds none."""
        if self.entry is None:
            raise RuntimeError('the waiter was served nothing')
        return self.entry

    @property
    def has_ticket(self):
        """Whether what it was served is a slot to connect for, not a connection."""
        return self.entry is not None and self.entry.state == CREATING

    @property
    def has_doomed(self):
        """Whether it keeps connections that it has to dispose of (:py:meth:`PoolCore.take_own`)."""
        return self.own_head != NULL

    @property
    def dead(self):
        """The entry that was found dead and is to be disposed of first, or None."""
        return self.corpse

    def keep_doomed(self):
        """Keep what this acquire dooms, from now on, for whoever drives it, apart from what others dispose of."""
        self.keeps = True

    def arm(self, object notify):
        """Set what is called, once and with no lock held, if it has to wait and is then served or refused."""
        self.notify = notify


cdef inline void idle_append(void **head, void **tail, void *p) noexcept:
    (<Entry>p).next = NULL
    (<Entry>p).prev = tail[0]
    if tail[0] != NULL:
        (<Entry>tail[0]).next = p
    else:
        head[0] = p
    tail[0] = p


cdef inline void idle_unlink(EndpointPool ep, void *p) noexcept:
    # ep.lock is held
    cdef void *prev = (<Entry>p).prev
    cdef void *next = (<Entry>p).next
    if (<Entry>p).is_core:
        ep.core_idle -= 1
        if prev != NULL:
            (<Entry>prev).next = next
        else:
            ep.core_head = next
        if next != NULL:
            (<Entry>next).prev = prev
        else:
            ep.core_tail = prev
    else:
        ep.extra_idle -= 1
        if prev != NULL:
            (<Entry>prev).next = next
        else:
            ep.extra_head = next
        if next != NULL:
            (<Entry>next).prev = prev
        else:
            ep.extra_tail = prev
    (<Entry>p).prev = NULL
    (<Entry>p).next = NULL


cdef inline void waiter_unlink(EndpointPool ep, void *p) noexcept:
    # ep.lock is held
    cdef void *prev = (<Waiter>p).prev
    cdef void *next = (<Waiter>p).next
    if prev != NULL:
        (<Waiter>prev).next = next
    else:
        ep.waiter_head = next
    if next != NULL:
        (<Waiter>next).prev = prev
    else:
        ep.waiter_tail = prev
    (<Waiter>p).prev = NULL
    (<Waiter>p).next = NULL
    ep.waiting -= 1


cdef inline void *first_free(EndpointPool ep) noexcept:
    # ep.lock is held. The first waiter whose thread is not held up by a dispose, which may take long; else the first.
    cdef void *p = ep.waiter_head
    while p != NULL and (<Waiter>p).disposes:
        p = (<Waiter>p).next
    return ep.waiter_head if p == NULL else p


cdef inline EndpointPool pool_of(Entry e):
    # Entries and waiters can be made by hand. Those that no core served lead nowhere.
    if e is None or e.pool is None:
        raise RuntimeError('there is no entry, or one that no pool ever served')
    return e.pool


cdef inline void count_acquired(EndpointPool ep, Entry e) noexcept:
    e.turn += 1
    ep.acquires += 1


cdef int notify_all(void *chain) except -1:
    # No lock is held. The chain owns a reference to each of its waiters.
    cdef void *following
    cdef Waiter w
    failure = None
    while chain != NULL:
        w = <Waiter>chain
        Py_DECREF(w)
        following = w.next
        w.next = NULL
        try:
            w.notify()
        except BaseException as exc:    # one that cannot be woken (its loop is closed) must not keep the others asleep
            if failure is None:
                failure = exc
        chain = following
    if failure is not None:
        raise failure
    return 0


# ---------------------------------------------------------------------------------------------------------------------
# The state machine
# ---------------------------------------------------------------------------------------------------------------------

cdef void *cores = NULL                 # [cores_lock] all that are alive, for the forked child
cdef gcp_mutex cores_lock
cdef long process = gcp_process_id()    # in which the pools were made, or last begun anew


@cython.linetrace(False)
cdef void begin_anew_in_child() noexcept:
    # The C library calls this in the child, at the end of fork(). A server in C may fork without telling Python, and
    # the child then has no thread state: nothing of the interpreter is called here or below, and nothing is allocated
    # or freed.
    global process
    cdef void *p = cores
    memset(&cores_lock, 0, sizeof(gcp_mutex))
    process = gcp_process_id()
    while p != NULL:
        (<PoolCore>p).begin_anew()
        p = (<PoolCore>p).following


def reset_after_fork():
    """In a forked child: begin every pool anew, empty, and leave the parent's connections alone.

    Does nothing if begin_anew_in_child() has run in this process: the pools may have been used since.
    """
    if process != gcp_process_id():
        begin_anew_in_child()


# Both are registered, since each misses some forks: the first those that bypass the C library, the second those in C.
gcp_call_in_child(begin_anew_in_child)
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=reset_after_fork)


@cython.final
@cython.no_gc_clear
cdef class PoolCore:
    """The state machine. All times are seconds on one monotonic line, all sizes numbers of connections.

    :param min_idle: how many idle connections of an endpoint are core
    :param max_size: how many connections an endpoint may have
    :param total_max_size: how many connections there may be
    :param idle_timeout: seconds after which an unused extra connection is due
    :param max_lifetime: seconds after which any connection is due
    :param collects: whether a background worker closes what is due, so that release leaves that to it
    :param clock: what to read the time from instead of the system's monotonic clock, for tests
    :param wake_collector: called, with no lock held, when something is due earlier than the worker was last told;
        returns False if no worker could be told
    :param normalize: called, with no lock held, for an endpoint that was not seen before; returns what it counts as
    """

    def __cinit__(self):
        global cores
        self.expiry = IndexedHeap()
        self.starving = IndexedHeap()
        self.due_at = INFINITY
        self.wake_at = INFINITY
        gcp_lock(&cores_lock)
        self.following = cores
        if cores != NULL:
            (<PoolCore>cores).previous = <void *>self
        cores = <void *>self
        gcp_unlock(&cores_lock)

    def __init__(
        self,
        int min_idle,
        int max_size,
        int total_max_size,
        double idle_timeout,
        double max_lifetime,
        bint collects=False,
        object clock=None,
        object wake_collector=None,
        object normalize=None,
    ):
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.idle_timeout = idle_timeout
        self.max_lifetime = max_lifetime
        self.collects = collects
        self.clock = clock
        self.wake_collector = wake_collector
        self.normalize = normalize

    def __dealloc__(self):
        global cores
        cdef Ancestor *a
        gcp_lock(&cores_lock)
        if self.previous != NULL:
            (<PoolCore>self.previous).following = self.following
        else:
            cores = self.following
        if self.following != NULL:
            (<PoolCore>self.following).previous = self.previous
        gcp_unlock(&cores_lock)
        map_free(&self.by_identity)
        map_free(&self.by_hash)
        map_free(&self.by_spelling)
        map_free(&self.by_connection)
        PyMem_Free(self.ancestor_to_be)
        while self.ancestor != NULL:
            a = self.ancestor
            self.ancestor = a.ancestor
            map_free(&a.connections)
            PyMem_Free(a)

    @cython.linetrace(False)
    cdef void begin_anew(self) noexcept nogil:
        # See begin_anew_in_child(). Another thread may have been in a locked region when the process was copied, so
        # nothing of the old structures is walked. The parent's connections are kept for good, past the end of the
        # interpreter: a finalizer that says goodbye on a shared socket would end the parent's session.
        cdef Ancestor *a = self.ancestor_to_be
        cdef int s
        self.generation += 1
        memset(&self.lock, 0, sizeof(gcp_mutex))
        if a != NULL:           # else this process has created no connection: what there is, is of older generations
            for s in range(GCP_SHARDS):
                if not gcp_is_locked(&self.by_connection.locks[s]):
                    a.connections.tables[s] = self.by_connection.tables[s]
            a.ancestor = self.ancestor
            self.ancestor = a
            self.ancestor_to_be = NULL
            gcp_keep_for_good(<void *>self.entries)
        memset(&self.by_identity, 0, sizeof(Map))
        memset(&self.by_hash, 0, sizeof(Map))
        memset(&self.by_spelling, 0, sizeof(Map))
        memset(&self.by_connection, 0, sizeof(Map))
        self.expiry.begin_anew()
        self.starving.begin_anew()
        self.due_at = INFINITY
        self.wake_at = INFINITY
        self.starving_count = 0
        self.size = 0
        self.closing = 0
        self.helping_now = 0
        self.helping_before = 0
        self.owners = NULL
        self.doomed_head = NULL
        self.doomed_tail = NULL
        self.doomed_count = 0
        self.closers = NULL
        self.acquires = 0
        self.created_ = 0
        self.create_errors = 0
        self.dead_ = 0
        self.broken_ = 0
        self.disposed_ = 0
        self.waits = 0
        self.timeouts = 0

    cdef set own_entries(self):
        # The entries of this process. What a forked child will need is allocated here, before there is a connection to
        # inherit: the child cannot allocate.
        cdef set found = None
        cdef set new
        cdef Ancestor *a
        gcp_lock(&self.lock)
        if self.ancestor_to_be != NULL:
            found = self.entries
        gcp_unlock(&self.lock)
        if found is not None:
            return found
        new = set()
        a = <Ancestor *>PyMem_Malloc(sizeof(Ancestor))
        if a == NULL:
            raise MemoryError
        memset(a, 0, sizeof(Ancestor))
        gcp_lock(&self.lock)
        if self.ancestor_to_be == NULL:
            self.entries = new
            self.ancestor_to_be = a
            a = NULL
        gcp_unlock(&self.lock)
        PyMem_Free(a)
        return self.entries

    cdef bint is_inherited(self, object conn) noexcept:
        # Whether it is a connection of a process that this one was forked from.
        cdef Ancestor *a = self.ancestor
        while a != NULL:
            if table_find(&a.connections.tables[shard_of(<size_t><void *>conn)], <size_t><void *>conn) != NULL:
                return True
            a = a.ancestor
        return False

    # -- time -----------------------------------------------------------------------------------------------------

    cdef inline double read_clock(self) except? -1:
        if self.clock is None:
            return gcp_monotonic_coarse()
        return <double>self.clock()

    cpdef double now(self) except? -1:
        """The time in seconds, exact."""
        if self.clock is None:
            return gcp_monotonic()
        return <double>self.clock()

    # -- finding an endpoint's pool --------------------------------------------------------------------------------

    cdef inline EndpointPool find_seen(self, object endpoint):
        # By identity first: the hash of an endpoint may be Python code. None if the endpoint is unknown, or
        # spelled in a way that was not seen before: find() and request() then ask the manager.
        cdef EndpointPool ep = <EndpointPool>map_get(&self.by_identity, <size_t><void *>endpoint)
        cdef Py_hash_t hash_
        if ep is None and (gcp_load_int(&self.size) > 0 or gcp_load_int(&self.starving_count)):
            hash_ = hash_of(endpoint)
            ep = self.find_in(&self.by_hash, endpoint, hash_, NULL)
            if ep is None and self.normalize is not None:
                ep = self.find_in(&self.by_spelling, endpoint, hash_, NULL)
            if ep is not None:
                self.set_alias(ep, endpoint)
        return ep

    cdef EndpointPool find(self, object endpoint):
        # The pool of an endpoint, however the endpoint is spelled. None if it is unknown.
        cdef EndpointPool ep = self.find_seen(endpoint)
        cdef Spelling new
        if ep is None and self.normalize is not None:
            counts_as = self.normalized(endpoint)
            new = self.new_spelling(endpoint, counts_as)
            ep = self.find_seen(counts_as)
            if ep is not None and new is not None:
                self.add_spelling(ep, new)
        return ep

    cdef bint leads_to(self, EndpointPool ep, object endpoint) except -1:
        # Whether the endpoint is that of the endpoint pool, or another spelling of it.
        cdef EndpointPool found
        if ep.endpoint is endpoint or map_get(&self.by_identity, <size_t><void *>endpoint) is ep:
            return True
        if ep.endpoint == endpoint:
            return True
        if self.normalize is None:
            return False
        found = self.find(endpoint)
        # Where the pool was closed over its connections, the endpoint pool may be forgotten, or there is a new one.
        return found is ep or ep.endpoint == (self.normalized(endpoint) if found is None else found.endpoint)

    cdef EndpointPool find_in(self, Map *where, object endpoint, Py_hash_t hash_, size_t *version):
        # In by_hash, or in by_spelling. __eq__ is user code: it runs between two looks at the table, and the search
        # starts again if that changed.
        cdef EndpointPool ep
        cdef void *found
        cdef bint equal
        cdef size_t n = 0, seen = 0
        cdef size_t s = shard_of(<size_t>hash_)
        cdef Table *t = &where.tables[s]
        while True:
            gcp_lock(&where.locks[s])
            if n == 0:
                seen = t.version
            elif seen != t.version:
                n = 0
                gcp_unlock(&where.locks[s])
                continue
            found = table_find_nth(t, <size_t>hash_, n)
            ep = <EndpointPool>found if found != NULL else None
            gcp_unlock(&where.locks[s])
            if ep is None:
                if version != NULL:
                    version[0] = seen
                return None
            if where == &self.by_spelling:
                equal = self.is_spelled(ep, endpoint, hash_)
            else:
                equal = ep.endpoint is endpoint or ep.endpoint == endpoint
            if ep.generation != self.generation:    # __eq__ has forked, and this is the child
                n = 0
            elif equal:
                return ep
            else:
                n += 1
            ep = None       # forgotten meanwhile, maybe: then it goes with its endpoint, and not under the lock

    cdef bint is_spelled(self, EndpointPool ep, object endpoint, Py_hash_t hash_) except -1:
        # Whether the endpoint is among the remembered spellings of the endpoint pool's own.
        cdef Spelling spelling
        cdef Spelling following
        gcp_lock(&ep.lock)
        spelling = ep.spellings
        gcp_unlock(&ep.lock)
        while spelling is not None:
            if spelling.hash == hash_ and (spelling.endpoint is endpoint or spelling.endpoint == endpoint):
                return True
            gcp_lock(&ep.lock)
            following = spelling.next
            gcp_unlock(&ep.lock)
            spelling = following
        return False

    cdef object normalized(self, object endpoint):
        # What the manager says that an endpoint counts as. normalize() is user code: no lock is held.
        hash_of(endpoint)
        counts_as = self.normalize(endpoint)
        if counts_as is None and endpoint is not None:
            raise TypeError(f'normalize() returned None for endpoint {endpoint!r}: expected what it counts as')
        return counts_as

    cdef Spelling new_spelling(self, object endpoint, object counts_as):
        # None if the two are equal: then either of them is found by the hash of the other. It runs __hash__ and
        # __eq__, so no lock is held. It allocates, so that add_spelling() cannot fail half-way.
        cdef Spelling new
        cdef Py_hash_t hash_ = hash_of(endpoint)
        cdef Py_hash_t hash_of_normalized
        try:
            hash_of_normalized = PyObject_Hash(counts_as)
        except Exception as exc:
            raise TypeError(
                f'normalize() returned {counts_as!r} of type {type(counts_as).__name__} for endpoint {endpoint!r}: '
                'expected a hashable object'
            ) from exc
        if counts_as is endpoint or (hash_ == hash_of_normalized and counts_as == endpoint):
            return None
        new = Spelling.__new__(Spelling)
        new.endpoint = endpoint
        new.hash = hash_
        return new

    cdef void add_spelling(self, EndpointPool ep, Spelling new):
        # Beyond MAX_SPELLINGS the oldest spelling is forgotten: a program that spells an endpoint in another way each
        # time must not fill the memory.
        cdef Spelling _oldest = None    # goes when the lock is free again
        cdef void *p
        cdef void *before = NULL
        cdef int count = 1
        cdef size_t s = shard_of(<size_t>new.hash)
        cdef int failed = 1
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            gcp_lock(&self.by_spelling.locks[s])
            failed = table_insert(&self.by_spelling.tables[s], <size_t>new.hash, <void *>ep)
            gcp_unlock(&self.by_spelling.locks[s])
        if not failed:          # else there was no memory for it, and the manager is asked again
            self.add_identity(ep, new.endpoint)
            new.next = ep.spellings
            ep.spellings = new
            p = <void *>new
            while (<Spelling>p).next is not None:
                before = p
                p = <void *>(<Spelling>p).next
                count += 1
            if count > MAX_SPELLINGS:
                _oldest = <Spelling>p
                self.forget_spelling(ep, p)
                (<Spelling>before).next = None
        gcp_unlock(&ep.lock)

    cdef void forget_spelling(self, EndpointPool ep, void *p) noexcept:
        # ep.lock is held.
        map_remove(&self.by_spelling, <size_t>(<Spelling>p).hash, <void *>ep)
        map_remove(&self.by_identity, <size_t><void *>(<Spelling>p).endpoint, <void *>ep)

    cdef EndpointPool find_or_add(self, object endpoint):
        cdef EndpointPool ep
        cdef Spelling new
        if self.normalize is None:
            ep = <EndpointPool>map_get(&self.by_identity, <size_t><void *>endpoint)
            return self.find_or_add_equal(endpoint, hash_of(endpoint)) if ep is None else ep
        ep = self.find_seen(endpoint)
        if ep is not None:
            return ep
        counts_as = self.normalized(endpoint)
        new = self.new_spelling(endpoint, counts_as)
        ep = self.find_or_add_equal(counts_as, hash_of(counts_as))
        if new is not None:
            self.add_spelling(ep, new)
        return ep

    cdef EndpointPool find_or_add_equal(self, object endpoint, Py_hash_t hash_):
        cdef EndpointPool ep
        cdef EndpointPool new = None
        cdef size_t version
        cdef size_t s = shard_of(<size_t>hash_)
        cdef int failed = 0
        cdef bint added = False
        while True:
            version = 0
            ep = self.find_in(&self.by_hash, endpoint, hash_, &version)
            if ep is not None:
                self.set_alias(ep, endpoint)
                return ep
            if new is None:
                new = EndpointPool()
                new.endpoint = endpoint
                new.hash = hash_
            new.generation = self.generation
            gcp_lock(&self.by_hash.locks[s])
            if self.by_hash.tables[s].version == version:
                failed = table_insert(&self.by_hash.tables[s], <size_t>hash_, <void *>new)
                added = not failed
            gcp_unlock(&self.by_hash.locks[s])
            if failed:
                raise MemoryError
            if added:
                # Another thread may have found it by its hash, used it and had it forgotten.
                gcp_lock(&new.lock)
                if not new.forgotten:
                    self.add_identity(new, endpoint)
                gcp_unlock(&new.lock)
                return new

    cdef bint add_identity(self, EndpointPool ep, object endpoint) noexcept:
        # ep.lock is held. False when there is no memory: then it is found by its hash.
        cdef size_t s = shard_of(<size_t><void *>endpoint)
        cdef int failed
        gcp_lock(&self.by_identity.locks[s])
        failed = table_insert(&self.by_identity.tables[s], <size_t><void *>endpoint, <void *>ep)
        gcp_unlock(&self.by_identity.locks[s])
        return not failed

    cdef void set_alias(self, EndpointPool ep, object endpoint):
        # Many programs build an equal endpoint somewhere else and then use that one object all the time.
        cdef object old = endpoint      # holds the reference until the lock is free again
        gcp_lock(&ep.lock)
        if not ep.forgotten and ep.alias is not endpoint and ep.endpoint is not endpoint:
            old = ep.alias
            if old is not None:
                map_remove(&self.by_identity, <size_t><void *>old, <void *>ep)
            ep.alias = endpoint if self.add_identity(ep, endpoint) else None
        gcp_unlock(&ep.lock)

    cdef void forget_if_empty(self, EndpointPool ep) noexcept:
        # Both locks are held. The caller holds a reference to ep, so that nothing is let go here.
        cdef void *p
        if ep.size or ep.waiting or ep.forgotten:
            return
        ep.forgotten = True
        if ep.has_place:
            ep.has_place = False
            self.starving.promised -= 1
        if ep.heap_index >= 0:
            self.starving.remove(<void *>ep)
            gcp_store_int(&self.starving_count, <int>self.starving.used)
        map_remove(&self.by_hash, <size_t>ep.hash, <void *>ep)
        map_remove(&self.by_identity, <size_t><void *>ep.endpoint, <void *>ep)
        if ep.alias is not None:
            map_remove(&self.by_identity, <size_t><void *>ep.alias, <void *>ep)
        p = <void *>ep.spellings
        while p != <void *>None:
            self.forget_spelling(ep, p)
            p = <void *>(<Spelling>p).next
        self.acquires += ep.acquires

    # -- the hot path ----------------------------------------------------------------------------------------------

    cdef Entry take_idle(self, object endpoint, double now, double interval):
        """An idle connection, core ones first, or None: then :py:meth:`request` knows more.

        None, too, for another spelling of an endpoint that was not seen before: only request() asks the manager.

        :param interval: seconds; None, too, when it was not used within them, or is suspect. 0: never mind.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef void *p
        cdef Slot *slot = NULL
        if GCP_SHARED_STAMP:
            # With the GIL nobody moves the tables meanwhile. Among many endpoints a cycle is a walk from one cache miss
            # to the next: ask for all of it at once.
            slot = table_find_slot(&self.by_identity.tables[0], <size_t><void *>endpoint)
        if slot != NULL:
            gcp_prefetch(<char *>slot.value + 64)
            gcp_prefetch(slot.hint)
            gcp_prefetch(<char *>slot.hint + 64)
            gcp_prefetch(slot.hint_conn)
            table_prefetch(&self.by_connection.tables[0], <size_t>slot.hint_conn)
            ep = <EndpointPool>slot.value
        else:
            ep = self.find_seen(endpoint)
            if ep is None:
                return None
        gcp_lock(&ep.lock)
        p = ep.core_head
        if p == NULL:
            p = ep.extra_tail
        # Where somebody waits nothing is idle, so this overtakes nobody.
        if p == NULL or gcp_load_int(&self.is_closed) or (<Entry>p).expires_at <= now:
            gcp_unlock(&ep.lock)
            return None
        if interval > 0 and (
            (<Entry>p).unsure or now - (<Entry>p).used_at >= interval or (<Entry>p).trust != ep.suspicion
        ):
            gcp_unlock(&ep.lock)
            return None
        e = <Entry>p
        if slot != NULL and slot.hint != p:
            slot.hint = p
            slot.hint_conn = <void *>e.conn_
        idle_unlink(ep, p)
        e.state = ACQUIRED
        ep.acquired += 1
        count_acquired(ep, e)
        gcp_unlock(&ep.lock)
        return e

    cdef int release_entry(self, Entry e, double now) except -1:
        # The hot part of release(): 0 when all is done, else 1 and nothing is.
        cdef EndpointPool ep = e.pool
        cdef Waiter w
        cdef double deadline
        cdef bint is_core
        if e.generation != self.generation:
            return 0
        gcp_lock(&ep.lock)
        if e.state != ACQUIRED and e.state != RELEASING:
            gcp_unlock(&ep.lock)
            if e.forced:
                return self.let_go(e)
            raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {STATES[e.state]}')
        if (
            e.expires_at <= now
            or gcp_load_int(&self.is_closed)
            or gcp_load_int(&self.starving_count)
            or ep.size > gcp_load_int(&self.max_size)
            or gcp_load_int(&self.size) > gcp_load_int(&self.total_max_size)
        ):
            gcp_unlock(&ep.lock)
            return 1
        if ep.waiter_head != NULL:
            w = <Waiter>first_free(ep)
            waiter_unlink(ep, <void *>w)
            e.state = ACQUIRED
            e.used_at = now
            count_acquired(ep, e)
            w.entry = e
            w.state = SERVED
            gcp_unlock(&ep.lock)
            w.notify()
            return 0
        is_core = ep.acquired - 1 < gcp_load_int(&self.min_idle) - ep.core_idle
        deadline = e.expires_at
        if not is_core and now + self.idle_timeout < deadline:
            deadline = now + self.idle_timeout
        if deadline < e.heap_key:       # it has to be queued earlier than it is: that takes the core's lock
            gcp_unlock(&ep.lock)
            return 1
        self.keep_idle(ep, e, now, is_core)
        gcp_unlock(&ep.lock)
        return 0

    cdef inline void keep_idle(self, EndpointPool ep, Entry e, double now, bint is_core) noexcept:
        # ep.lock is held. The expiry queue is not touched: an entry whose deadline went up is looked at again when its
        # old one comes up.
        ep.acquired -= 1
        e.state = IDLE
        e.used_at = now
        if GCP_SHARED_STAMP:
            self.stamp += 1
            e.stamp = self.stamp
        else:
            ep.stamp += 1
            e.stamp = ep.stamp
        e.is_core = is_core
        if is_core:
            ep.core_idle += 1
            idle_append(&ep.core_head, &ep.core_tail, <void *>e)
        else:
            ep.extra_idle += 1
            idle_append(&ep.extra_head, &ep.extra_tail, <void *>e)

    # -- helpers under both locks ----------------------------------------------------------------------------------

    cdef inline void queue_doomed(self, Entry e) noexcept:
        # self.lock is held; the entry's state is CLOSING and it is in no idle list.
        e.next = NULL
        if self.doomed_tail != NULL:
            (<Entry>self.doomed_tail).next = <void *>e
        else:
            self.doomed_head = <void *>e
        self.doomed_tail = <void *>e
        gcp_store_int(&self.doomed_count, self.doomed_count + 1)

    cdef inline void doom(self, EndpointPool ep, Entry e) noexcept:
        # Both locks are held; the caller has taken the entry off the count of its former state.
        e.state = CLOSING
        ep.closing += 1
        self.closing += 1
        self.queue_doomed(e)

    cdef void own(self, Waiter w, void *tail) noexcept:
        # self.lock is held, and was since `tail` was the end of the doomed: what stands after it is the waiter's.
        cdef void *first
        cdef void *p
        if w is None or not w.keeps or w.pool is None or self.doomed_tail == tail:
            return
        if tail == NULL:
            first = self.doomed_head
            self.doomed_head = NULL
        else:
            first = (<Entry>tail).next
            (<Entry>tail).next = NULL
        if w.own_tail == NULL:
            w.own_head = first
            w.next_owner = self.owners
            w.previous_owner = NULL
            if self.owners != NULL:
                (<Waiter>self.owners).previous_owner = <void *>w
            self.owners = <void *>w
        else:
            (<Entry>w.own_tail).next = first
        w.own_tail = self.doomed_tail
        self.doomed_tail = tail
        p = first
        while p != NULL:
            gcp_store_int(&self.doomed_count, self.doomed_count - 1)
            p = (<Entry>p).next

    cdef void owns_nothing(self, Waiter w) noexcept:
        # self.lock is held.
        w.own_head = w.own_tail = NULL
        if w.previous_owner != NULL:
            (<Waiter>w.previous_owner).next_owner = w.next_owner
        else:
            self.owners = w.next_owner
        if w.next_owner != NULL:
            (<Waiter>w.next_owner).previous_owner = w.previous_owner
        w.previous_owner = w.next_owner = NULL

    cdef void share(self, Waiter w) noexcept:
        # self.lock is held. What it keeps is among the doomed again.
        cdef void *p = w.own_head
        cdef void *following
        self.owns_nothing(w)
        while p != NULL:
            following = (<Entry>p).next
            self.queue_doomed(<Entry>p)
            p = following

    # Where the total cap is reached, idle connections are closed for those who wait: as many at a time as there are
    # endpoints in need. One that is being closed is help if it was doomed while there was too little of it, and for a
    # while: a dispose that hangs, or was begun for nobody, keeps no idle connection from being closed for somebody.

    cdef inline bint needs_help(self) noexcept:
        # self.lock is held.
        return self.helping_now + self.helping_before < <int>self.starving.used

    cdef bint first_is_held_up(self) noexcept:
        # self.lock is held, no other. Whether all who wait at the endpoint that comes first are held up by disposes of
        # their own.
        cdef EndpointPool ep
        cdef void *p
        cdef bint held_up
        if self.starving.used == 0:
            return False
        ep = <EndpointPool>self.starving.items[0].item
        gcp_lock(&ep.lock)
        p = first_free(ep)
        held_up = p != NULL and (<Waiter>p).disposes
        gcp_unlock(&ep.lock)
        return held_up

    cdef inline int lacking(self, bint held_up) noexcept:
        # self.lock is held. How many more connections to close. An endpoint that could not use a slot yet needs no help
        # but what it is held up by.
        cdef int helping = self.helping_now + self.helping_before
        return <int>self.starving.used - helping - (held_up and helping == 0)

    cdef inline void help(self, void *p) noexcept:
        # self.lock is held. The entry is being closed.
        if self.needs_help():
            (<Entry>p).helps = True
            (<Entry>p).help_epoch = self.help_epoch
            self.helping_now += 1

    cdef inline bint pass_time(self, double now) noexcept:
        # self.lock is held. Whether that ends the time of some help.
        cdef int epoch = <int>(max(min(now, 2e9), -2e9) / HELP_TIME)
        cdef bint ended
        if epoch <= self.help_epoch:
            return False
        ended = self.helping_before > 0 or (self.helping_now > 0 and epoch > self.help_epoch + 1)
        self.helping_before = self.helping_now if epoch == self.help_epoch + 1 else 0
        self.helping_now = 0
        self.help_epoch = epoch
        return ended

    cdef inline void set_due(self) noexcept:
        gcp_store_double(&self.due_at, self.expiry.items[0].key if self.expiry.used else INFINITY)

    cdef void *settle(self, double limit) noexcept:
        # The idle entry whose deadline comes first, if the queue says that it is not after `limit`, with its endpoint
        # pool's lock held; else NULL. self.lock is held, no other. Keys in the queue are never later than the
        # deadlines, so the first one that is up to date is the minimum.
        cdef void *p
        cdef EndpointPool ep
        cdef double deadline
        cdef unsigned long long stamp
        while self.expiry.used and self.expiry.items[0].key <= limit:
            p = self.expiry.items[0].item
            ep = (<Entry>p).pool
            gcp_lock(&ep.lock)
            if (<Entry>p).state != IDLE:
                (<Entry>p).heap_key = INFINITY
                self.expiry.remove(p)
                gcp_unlock(&ep.lock)
                continue
            deadline = (<Entry>p).expires_at
            stamp = (<Entry>p).stamp
            if not (<Entry>p).is_core and (<Entry>p).used_at + self.idle_timeout < deadline:
                deadline = (<Entry>p).used_at + self.idle_timeout
            if deadline == (<Entry>p).heap_key and stamp == self.expiry.items[0].stamp:
                return p
            (<Entry>p).heap_key = deadline
            self.expiry.rekey(p, deadline, stamp)
            gcp_unlock(&ep.lock)
        return NULL

    cdef void *evict(self, double limit) noexcept:
        # Doom the idle connection whose deadline comes first, if that is not after `limit`. Only self.lock is held.
        cdef void *p = self.settle(limit)
        cdef EndpointPool ep
        if p != NULL:
            ep = (<Entry>p).pool
            idle_unlink(ep, p)
            (<Entry>p).heap_key = INFINITY
            self.expiry.remove(p)
            self.doom(ep, <Entry>p)
            gcp_unlock(&ep.lock)
        self.set_due()
        return p

    cdef void serve_ticket(self, EndpointPool ep, Waiter w) noexcept:
        # Both locks are held and both limits leave room.
        cdef Entry e = w.spare
        w.entry = e
        w.spare = None
        w.state = SERVED
        e.pool = ep
        e.state = CREATING
        e.generation = self.generation
        e.trust = ep.suspicion          # from now on, not from the end of the connect: it may be half made in an outage
        ep.size += 1
        ep.creating += 1
        gcp_store_int(&self.size, self.size + 1)

    cdef void enqueue(self, EndpointPool ep, Waiter w) noexcept:
        # Both locks are held. By number: one that was served a dead connection comes before all that came after it. It
        # is older than nearly everybody, so its place is looked for from the front.
        cdef void *after = ep.waiter_tail
        cdef void *following = NULL
        if after != NULL and (<Waiter>after).number > w.number:
            after = NULL
            following = ep.waiter_head
            while (<Waiter>following).number < w.number:
                after = following
                following = (<Waiter>following).next
        w.prev = after
        w.next = following
        if after != NULL:
            (<Waiter>after).next = <void *>w
        else:
            ep.waiter_head = <void *>w
        if following != NULL:
            (<Waiter>following).prev = <void *>w
        else:
            ep.waiter_tail = <void *>w
        ep.waiting += 1
        w.state = QUEUED
        if not w.has_waited:
            w.has_waited = True
            self.waits += 1

    cdef bint dequeue(self, EndpointPool ep, void *p) noexcept:
        # Both locks are held. False when the waiter was not queued any more.
        if (<Waiter>p).state != QUEUED:
            return False
        waiter_unlink(ep, p)
        (<Waiter>p).state = CANCELLED
        self.starve(ep)
        self.forget_if_empty(ep)
        return True

    cdef void starve(self, EndpointPool ep) noexcept:
        # Both locks are held. Keep the endpoint pool among those that want a slot: there while it has waiters and room
        # for a connection of its own. It was promised a place in the heap when its first waiter was queued.
        cdef void *head = ep.waiter_head
        cdef bint wants = head != NULL and ep.size < self.max_size
        if wants and ep.heap_index < 0:
            self.starving.push(<void *>ep, 0.0, (<Waiter>head).number)
        elif wants and self.starving.items[ep.heap_index].stamp != (<Waiter>head).number:
            self.starving.rekey(<void *>ep, 0.0, (<Waiter>head).number)
        elif not wants and ep.heap_index >= 0:
            self.starving.remove(<void *>ep)
        gcp_store_int(&self.starving_count, <int>self.starving.used)

    cdef void *dispatch(self) noexcept:
        # The one dispatcher: gives free slots to those who wait for one, oldest first over all endpoints, and where the
        # total cap is reached dooms idle connections of others. self.lock is held, no other. Returns whom to notify.
        cdef void *chain = NULL
        cdef void **end = &chain
        cdef void *p
        cdef int lacking
        cdef EndpointPool ep
        cdef Waiter w
        while self.starving.used:
            ep = <EndpointPool>self.starving.items[0].item
            gcp_lock(&ep.lock)
            if (
                ep.waiter_head == NULL
                or ep.size >= self.max_size
                or (<Waiter>ep.waiter_head).number != self.starving.items[0].stamp
            ):
                self.starve(ep)
                gcp_unlock(&ep.lock)
                continue
            if self.size >= self.total_max_size:
                gcp_unlock(&ep.lock)
                # As many closings as endpoints in need are enough for now: each end of one comes back here.
                lacking = self.lacking(self.first_is_held_up())
                while lacking > 0:
                    p = self.evict(INFINITY)
                    if p == NULL:
                        break
                    self.help(p)
                    lacking -= 1
                break
            w = <Waiter>first_free(ep)
            Py_INCREF(w)
            waiter_unlink(ep, <void *>w)
            self.serve_ticket(ep, w)
            self.starve(ep)
            gcp_unlock(&ep.lock)
            end[0] = <void *>w
            end = &w.next
        return chain

    cdef void *take_closers(self) noexcept:
        # self.lock is held. Those who wait for the pool to be empty, if it is; the list holds references already.
        cdef void *chain
        cdef void *p
        if self.size or self.closers == NULL:
            return NULL
        chain = self.closers
        p = chain
        while p != NULL:
            (<Waiter>p).state = SERVED
            p = (<Waiter>p).next
        self.closers = NULL
        return chain

    cdef void *after_slot_freed(self, EndpointPool ep) noexcept:
        # self.lock is held, no other.
        gcp_lock(&ep.lock)
        self.starve(ep)
        self.forget_if_empty(ep)
        gcp_unlock(&ep.lock)
        cdef void *chain = self.dispatch()
        if chain == NULL:
            chain = self.take_closers()
        return chain

    # -- acquiring --------------------------------------------------------------------------------------------------

    def try_acquire(self, object endpoint, double now):
        """An idle connection's entry, or None when none is ready, or the endpoint is spelled as never before. Nothing
        is created, nobody waits."""
        return self.take_idle(endpoint, now, 0)

    cpdef adopt(self, Waiter w, Entry e):
        """Let a waiter hold an entry that :py:meth:`try_acquire` gave."""
        if w is None:
            raise TypeError('expected a Waiter, got None')
        w.core = self
        w.pool = pool_of(e)
        if self.normalize is not None:
            w.endpoint = w.pool.endpoint
        w.entry = e
        w.state = SERVED
        gcp_lock(&self.lock)
        if w.number == 0:
            self.arrivals += 1
            w.number = self.arrivals
        gcp_unlock(&self.lock)

    def request(self, Waiter w not None, double now):
        """Serve a waiter an idle connection or a ticket, or queue it, or refuse it: its properties tell.

        A connection that has to be closed first is put among the doomed: dispose of those, then wait.

        :return: True when it was queued: it will be notified, once.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef void *p
        cdef void *chain = NULL
        cdef void *tail
        cdef bint queued = False
        if w.state == QUEUED or w.entry is not None:
            raise RuntimeError('the waiter waits already, or holds what it was served')
        if w.spare is None:
            w.spare = Entry()
        while True:
            # created() adds the entry of a new connection to this set, and must not fail at that.
            self.own_entries()
            ep = self.find_or_add(w.endpoint)
            w.core = self
            w.pool = ep
            if self.normalize is not None:
                w.endpoint = ep.endpoint        # what the manager's other methods are called with
            gcp_lock(&self.lock)
            if self.is_closed:
                w.state = REFUSED
                gcp_lock(&ep.lock)
                self.forget_if_empty(ep)
                gcp_unlock(&ep.lock)
                gcp_unlock(&self.lock)
                return False
            gcp_lock(&ep.lock)
            if not ep.forgotten and self.ancestor_to_be != NULL:    # or an __eq__ has forked, and this is the child
                break
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        if w.number == 0:
            self.arrivals += 1
            w.number = self.arrivals
        w.state = FRESH
        tail = self.doomed_tail
        if ep.waiter_head == NULL or (<Waiter>ep.waiter_head).number > w.number:
            while True:
                p = ep.core_head
                if p == NULL:
                    p = ep.extra_tail
                if p == NULL:
                    break
                e = <Entry>p
                idle_unlink(ep, p)
                if e.expires_at <= now:
                    self.doom(ep, e)
                    continue
                e.state = ACQUIRED
                ep.acquired += 1
                count_acquired(ep, e)
                w.entry = e
                w.state = SERVED
                break
            if w.state == FRESH and ep.size < self.max_size and self.size < self.total_max_size:
                self.serve_ticket(ep, w)
        if w.state == FRESH and not ep.has_place:
            # Its last slot may come free at any time, without a request that could still fail.
            if not self.starving.make_room(self.starving.promised + 1):
                self.forget_if_empty(ep)
                self.own(w, tail)
                gcp_unlock(&ep.lock)
                gcp_unlock(&self.lock)
                raise MemoryError
            self.starving.promised += 1
            ep.has_place = True
        if w.state == FRESH:
            queued = True
            w.queued_at = now
            self.enqueue(ep, w)
            self.starve(ep)
            self.pass_time(now)
            # Slots that this acquire frees itself.
            if w.corpse is not None:
                self.help(<void *>w.corpse)
            p = self.doomed_head if tail == NULL else (<Entry>tail).next
            while p != NULL:
                self.help(p)
                p = (<Entry>p).next
        gcp_unlock(&ep.lock)
        if queued and self.starving_count:
            chain = self.dispatch()
        self.own(w, tail)
        gcp_unlock(&self.lock)
        notify_all(chain)
        return queued

    def created(self, Entry ticket not None, object conn, double now, Waiter w=None):
        """Turn a ticket into an acquired connection.

        :param w: who keeps the connection if it is doomed
        :return: False when the pool was closed meanwhile: the connection is among the doomed.
        :raises ValueError: when the pool holds that connection already; the ticket is as it was
        :raises RuntimeError: in a process that was forked meanwhile; the connection is the parent's
        """
        cdef EndpointPool ep = pool_of(ticket)
        cdef void *tail
        cdef bint served
        cdef size_t s = shard_of(<size_t><void *>conn)
        cdef int failed = 0
        cdef bint known
        if ticket.generation != self.generation:
            Py_INCREF(conn)     # no finalizer may end the parent's session
            raise RuntimeError(f'the process was forked while a connection to {ep.endpoint!r} was created')
        ticket.conn_ = conn             # from here on cancel() has it disposed of
        try:
            self.entries.add(ticket)    # of this process: request() has called own_entries()
        except MemoryError:
            Py_INCREF(ticket)           # nobody else owns it until then
            raise
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        gcp_assert(ticket.state == CREATING)
        gcp_lock(&self.by_connection.locks[s])
        known = table_find(&self.by_connection.tables[s], <size_t><void *>conn) != NULL
        if not known:
            failed = table_insert(&self.by_connection.tables[s], <size_t><void *>conn, <void *>ticket)
        gcp_unlock(&self.by_connection.locks[s])
        if failed:
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            raise MemoryError
        if known:
            ticket.conn_ = NOTHING      # the caller holds it, and it is somebody else's
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            self.entries.discard(ticket)
            raise ValueError(
                f'create() for endpoint {ep.endpoint!r} returned {conn!r}, which the pool holds already: '
                'expected a new connection'
            )
        self.created_ += 1
        ticket.used_at = now
        ticket.expires_at = min(now + self.max_lifetime, NEVER)
        ep.creating -= 1
        served = not self.is_closed
        if served:
            ticket.state = ACQUIRED
            ep.acquired += 1
            count_acquired(ep, ticket)
        else:
            tail = self.doomed_tail
            self.doom(ep, ticket)
            self.own(w, tail)
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return served

    cdef int fail(self, Entry ticket, Waiter w) except -1:
        cdef EndpointPool ep = ticket.pool
        cdef void *chain
        cdef void *tail
        if ticket.generation != self.generation:
            return 0
        gcp_lock(&self.lock)
        tail = self.doomed_tail
        gcp_lock(&ep.lock)
        gcp_assert(ticket.state == CREATING)
        ep.creating -= 1
        if ticket.conn_ is not NOTHING:     # connected, but not taken into the books
            self.doom(ep, ticket)
            self.own(w, tail)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            return 0
        ticket.state = GONE
        ep.size -= 1
        gcp_store_int(&self.size, self.size - 1)
        self.create_errors += 1
        gcp_unlock(&ep.lock)
        chain = self.after_slot_freed(ep)
        self.own(w, tail)
        gcp_unlock(&self.lock)
        notify_all(chain)
        return 0

    def failed(self, Waiter w not None):
        """Give a ticket back: there is no connection. Its slot goes to whoever waits for one."""
        cdef Entry e = w.served
        w.entry = None
        w.state = CANCELLED
        self.fail(e, w)

    # -- aliveness --------------------------------------------------------------------------------------------------
    # What a check finds out about one connection says something about the endpoint's others: when one turns out to be
    # dead, all that were not looked at since are suspect.

    cpdef bint doubts(self, Waiter w, double now, double interval):
        """Whether the connection that a waiter was served has to be checked before it is used.

        :param interval: seconds within which a connection that was used is taken to be alive, unless it is suspect
        """
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        cdef bint doubtful
        if w.entry.generation != self.generation:
            return False
        gcp_lock(&ep.lock)
        doubtful = w.entry.unsure or not now - w.entry.used_at < interval or w.entry.trust != ep.suspicion
        gcp_unlock(&ep.lock)
        return doubtful

    cpdef begin_check(self, Waiter w):
        """The connection that a waiter was served is about to be checked. If :py:meth:`end_check` does not come, it is
        checked again."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if w.entry.generation != self.generation:
            return
        gcp_lock(&ep.lock)
        w.suspicion = ep.suspicion
        w.entry.unsure = True
        gcp_unlock(&ep.lock)

    cpdef end_check(self, Waiter w):
        """The connection that a waiter was served was alive. If another one was found dead meanwhile, it is suspect
        again: it may have been asked before the server went."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if w.entry.generation != self.generation:
            return
        gcp_lock(&ep.lock)
        w.entry.trust = w.suspicion
        w.entry.unsure = False
        gcp_unlock(&ep.lock)

    cpdef doubt(self, Entry e):
        """What the manager was doing with a connection was cut off, or left out: it is checked before it is served."""
        cdef EndpointPool ep = pool_of(e)
        if e.generation != self.generation:
            return
        gcp_lock(&ep.lock)
        e.unsure = True
        gcp_unlock(&ep.lock)

    cpdef bint is_out(self, Entry e):
        """Whether a connection that is being released still is: not if the pool was closed over it, or after a fork."""
        cdef EndpointPool ep = pool_of(e)
        cdef bint out
        if e.generation != self.generation:
            return False
        gcp_lock(&ep.lock)
        out = e.state == ACQUIRED or e.state == RELEASING
        gcp_unlock(&ep.lock)
        return out

    cpdef bint condemn(self, Entry e) except -1:
        """Take a connection that is out, and unfit, out of use for good.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether the caller is to dispose of it, and then call :py:meth:`disposed` (not if the pool was closed
            over it, or a fork lies between)
        """
        return self.take_out(e, False)

    cpdef bint discard(self, Entry e) except -1:
        """The same, and it is among the doomed at once: whoever comes by disposes of it.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether it is
        """
        return self.take_out(e, True)

    cdef bint take_out(self, Entry e, bint queue) except -1:
        cdef EndpointPool ep = pool_of(e)
        cdef int state
        if e.generation != self.generation:
            return False
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        state = e.state
        if state == ACQUIRED or state == RELEASING:
            e.state = CLOSING
            ep.acquired -= 1
            ep.closing += 1
            self.closing += 1
            self.broken_ += 1
            self.help(<void *>e)
            if queue:
                self.queue_doomed(e)
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        if state == ACQUIRED or state == RELEASING:
            return True
        if not e.forced:
            raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {STATES[state]}')
        self.let_go(e)
        return False

    def suspect(self, Entry e not None):
        """A connection turned out to be broken in its user's hands: whatever was not looked at since is suspect."""
        cdef EndpointPool ep = pool_of(e)
        if e.generation != self.generation:
            return
        gcp_lock(&ep.lock)
        ep.suspicion += 1
        gcp_unlock(&ep.lock)

    def bury(self, Waiter w not None):
        """What the waiter was served is dead: it is to be disposed of (:py:attr:`Waiter.dead`), and the waiter to ask
        again before that, so that nobody comes between. Nothing is to be disposed of when the pool was closed over it
        during the check."""
        cdef Entry e = w.entry
        cdef EndpointPool ep = pool_of(e)
        cdef bint held
        if e.generation != self.generation:
            w.entry = None
            w.state = FRESH
            return
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        held = e.state == ACQUIRED
        if held:
            e.state = CLOSING
            ep.acquired -= 1
            ep.acquires -= 1
            ep.closing += 1
            self.closing += 1
            self.dead_ += 1
            ep.suspicion += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        if held:
            w.corpse = e
        else:
            self.let_go(e)
        w.entry = None
        w.state = FRESH

    cpdef bint confirm(self, Waiter w):
        """Whether a waiter still holds what it was served: not if the pool was closed over it in a check or a hook."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        cdef bint held
        gcp_lock(&ep.lock)
        held = w.entry.state == ACQUIRED
        gcp_unlock(&ep.lock)
        return held

    cpdef Entry take_corpse(self, Waiter w):
        """The entry that was found dead, for whoever disposes of it now."""
        cdef Entry e
        if w is None:
            raise TypeError('expected a Waiter, got None')
        e = w.corpse
        w.corpse = None
        if w.keeps and e is not None:
            self.set_disposes(w, True)
        return e

    cpdef bint cancel(self, Waiter w, double now) except -1:
        """Take a waiter out of the queue; what it was served already goes to the next one, or back.

        :return: True when it was still waiting, so that it will not be notified.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef Entry corpse
        cdef void *tail
        cdef bint waited = False
        if w is None:
            raise TypeError('expected a Waiter, got None')
        ep = w.pool
        corpse = w.corpse
        if ep is not None and ep.generation != self.generation:
            # The process was forked meanwhile. What it waited for, or holds, is the parent's.
            w.corpse = None
            w.entry = None
            w.state = CANCELLED
            return True
        if ep is None:
            w.state = CANCELLED
            return False
        gcp_lock(&self.lock)
        tail = self.doomed_tail
        gcp_lock(&ep.lock)
        waited = self.dequeue(ep, <void *>w)
        gcp_unlock(&ep.lock)
        if corpse is not None:
            self.queue_doomed(corpse)
        self.own(w, tail)
        gcp_unlock(&self.lock)
        w.corpse = None
        e = w.entry
        w.entry = None
        w.state = CANCELLED
        if e is None:
            return waited
        if e.state == CREATING:
            self.fail(e, w)
        elif e.state == ACQUIRED or e.forced:
            self.doubt(e)           # its check, or what comes after it, did not come to its end
            self.give_back(e, now, w)
        return waited

    def give_up(self, Waiter w not None):
        """A waiter's time is over: take it out of the queue unless it was served or refused in this very moment.

        :return: True when it is out; False when it will be, or has been, notified.
        """
        cdef EndpointPool ep = w.pool
        cdef bint waited
        if ep is None:
            return False
        if ep.generation != self.generation:
            return True
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        waited = self.dequeue(ep, <void *>w)
        if waited:
            self.timeouts += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return waited

    # -- releasing --------------------------------------------------------------------------------------------------

    cdef inline Entry find_at_once(self, object conn, object endpoint):
        # The entry of a connection that is acquired, where that can be told without an error and without user code
        # (__eq__ of another endpoint object); else None.
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
        if e is None or e.state != ACQUIRED:
            return None
        if e.pool.endpoint is not endpoint and map_get(&self.by_identity, <size_t><void *>endpoint) is not e.pool:
            return None
        return e

    cdef Entry find_out(self, object conn, object endpoint):
        """The entry of a connection that is to be given back, or None when there is nothing to do (it was out when the
        pool was closed over it, or belongs to the parent process)."""
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
        cdef EndpointPool ep
        if e is None:
            if self.is_inherited(conn):
                return None
            raise ConnectionNotAcquired(
                f'the connection {conn!r} is not of this pool (or it is closed): '
                f'expected one that acquire({endpoint!r}) gave'
            )
        ep = e.pool
        if ep.endpoint is not endpoint and not self.leads_to(ep, endpoint):
            raise ConnectionNotAcquired(
                f'the connection {conn!r} belongs to endpoint {ep.endpoint!r}, it was given back to {endpoint!r}'
            )
        if e.forced:
            self.let_go(e)
            return None
        return e

    cdef int let_go(self, Entry e) except -1:
        # The pool was closed over it, and now its user is through with it: nobody will ask for it again.
        cdef EndpointPool ep = e.pool
        cdef bint gone
        gcp_lock(&ep.lock)
        gone = e.forced and e.state == GONE
        e.forced = False
        gcp_unlock(&ep.lock)
        if gone:        # else it is still among the doomed, which do not own it: disposed() does this
            map_remove(&self.by_connection, <size_t><void *>e.conn_, <void *>e)
            self.entries.discard(e)
        return 0

    def find_acquired(self, object conn, object endpoint):
        """The entry of a connection that is out.

        :raises ConnectionNotAcquired: when it is not, or not of that endpoint
        """
        cdef Entry e = self.find_out(conn, endpoint)
        if e is not None and e.state != ACQUIRED:
            raise ConnectionNotAcquired(f'the connection {conn!r} is not acquired: its state is {STATES[e.state]}')
        return e

    def find_held(self, object conn, object endpoint):
        """The same, or None when it is not out, or another endpoint's. It changes nothing."""
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
        if e is None or e.state != ACQUIRED:
            return None
        return e if self.leads_to(e.pool, endpoint) else None

    cpdef bint begin_release(self, Entry e) except -1:
        """Mark a connection whose ``on_release`` hook is about to run, so that it cannot be given back once more.

        :raises ConnectionNotAcquired: when it is not acquired
        :return: False when there is nothing to release any more (the pool was closed over it, or a fork lies between)
        """
        cdef EndpointPool ep = pool_of(e)
        cdef int state
        if e.generation != self.generation:
            return False
        gcp_lock(&ep.lock)
        state = e.state
        if state == ACQUIRED:
            e.state = RELEASING
        gcp_unlock(&ep.lock)
        if state != ACQUIRED:
            if not e.forced:
                raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {STATES[state]}')
            self.let_go(e)
        return state == ACQUIRED

    cpdef release(self, Entry e, double now):
        """Give a connection back: to the first waiter, or to the idle ones, or to the doomed.

        :raises ConnectionNotAcquired: when it is not out; nothing is changed then
        """
        pool_of(e)
        if self.release_entry(e, now):
            self.give_back(e, now, None)

    cdef int give_back(self, Entry e, double now, Waiter keeper) except -1:
        # What release_entry() leaves: needs the core's lock. Whom it dooms the keeper disposes of, if there is one.
        cdef EndpointPool ep = e.pool
        cdef EndpointPool elder
        cdef Waiter w = None
        cdef void *chain = NULL
        cdef void *tail
        cdef double deadline
        cdef bint wake = False
        cdef bint close = False
        cdef bint helps = True
        cdef bint helpless
        cdef bint held_up
        cdef bint hand = False
        cdef bint late
        cdef long long head, overtaken
        gcp_lock(&self.lock)
        tail = self.doomed_tail
        held_up = self.first_is_held_up()
        if not self.expiry.make_room(self.expiry.used + 1):
            close = True        # it cannot be queued for expiry, so it cannot be idle
        gcp_lock(&ep.lock)
        if e.state != ACQUIRED and e.state != RELEASING:
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            if e.forced:
                return self.let_go(e)
            raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {STATES[e.state]}')
        late = self.pass_time(now)
        helpless = self.lacking(held_up) > 0
        if (
            self.is_closed
            or ep.size - ep.closing > self.max_size     # those that are being closed will be gone
            or self.size - self.closing > self.total_max_size
        ):
            close = True
            helps = False       # its slot is one too many
        elif e.expires_at <= now:
            # With a collector releases dispose of nothing, unless somebody waits for the slot.
            if not self.collects or ep.waiter_head != NULL or self.starving.used:
                close = True
        elif ep.waiter_head != NULL:
            hand = True
            if helpless:
                # An endpoint that has no connection of its own would wait for ever on one that is always busy: there
                # whoever came first goes first, at the price of a new connection. One that has some is expected to
                # serve itself, but not for ever either: they may be out for long.
                elder = <EndpointPool>self.starving.items[0].item
                head = <long long>(<Waiter>ep.waiter_head).number
                overtaken = head - <long long>self.starving.items[0].stamp
                if overtaken > (0 if elder.size == 0 else <long long>PATIENCE * self.total_max_size):
                    hand = False
                    close = True
        elif helpless:
            close = True
        if close:
            ep.acquired -= 1
            self.doom(ep, e)
            if helps:
                self.help(<void *>e)
        elif hand:
            w = <Waiter>first_free(ep)
            Py_INCREF(w)
            waiter_unlink(ep, <void *>w)
            e.state = ACQUIRED
            e.used_at = now
            count_acquired(ep, e)
            w.entry = e
            w.state = SERVED
            self.starve(ep)
            chain = <void *>w
        else:
            self.keep_idle(ep, e, now, ep.acquired - 1 < self.min_idle - ep.core_idle)
            deadline = e.expires_at
            if not e.is_core and now + self.idle_timeout < deadline:
                deadline = now + self.idle_timeout
            if deadline < e.heap_key:
                if e.heap_key == INFINITY and e.heap_index < 0:
                    self.expiry.push(<void *>e, deadline, e.stamp)
                else:
                    self.expiry.rekey(<void *>e, deadline, e.stamp)
                e.heap_key = deadline
                self.set_due()
                if self.due_at < self.wake_at and self.due_at < NEVER:
                    wake = True
                    self.wake_at = self.due_at
        gcp_unlock(&ep.lock)
        if self.starving.used and (late or not (close or hand)):
            if w is None:
                chain = self.dispatch()
            else:
                w.next = self.dispatch()
        self.own(keeper, tail)
        gcp_unlock(&self.lock)
        try:
            notify_all(chain)
        finally:
            if wake and self.wake_collector is not None:
                self.call_collector()
        return 0

    cdef int call_collector(self) except -1:
        try:
            if self.wake_collector() is False:
                self.forget_wake()
        except BaseException:
            # A signal handler raised in it, maybe. Nothing else would tell the collector of what is due: so once more.
            self.forget_wake()
            self.wake_collector()
            raise
        return 0

    cdef void forget_wake(self) noexcept:
        # The collector was not told: the next connection that is queued for expiry tries again.
        gcp_lock(&self.lock)
        self.wake_at = INFINITY
        gcp_unlock(&self.lock)

    # -- closing connections ----------------------------------------------------------------------------------------

    @property
    def doomed(self):
        """How many connections are to be closed now."""
        return gcp_load_int(&self.doomed_count)

    cpdef Entry take_doomed(self):
        """The next entry to be closed, or None. Whoever takes it disposes of it and then calls :py:meth:`disposed`."""
        cdef Entry e = None
        if gcp_load_int(&self.doomed_count) == 0:
            return None
        gcp_lock(&self.lock)
        if self.doomed_head != NULL:
            e = <Entry>self.doomed_head
            self.doomed_head = e.next
            e.next = NULL
            if self.doomed_head == NULL:
                self.doomed_tail = NULL
            gcp_store_int(&self.doomed_count, self.doomed_count - 1)
        gcp_unlock(&self.lock)
        return e

    cpdef Entry take_own(self, Waiter w):
        """The next entry that a waiter keeps to dispose of (:py:meth:`Waiter.keep_doomed`), or None."""
        cdef Entry e = None
        if w is None:
            raise TypeError('expected a Waiter, got None')
        if w.own_head == NULL and not w.disposes:
            return None
        if w.pool.generation != self.generation:
            w.own_head = w.own_tail = NULL      # the parent's
            return None
        gcp_lock(&self.lock)
        if w.own_head != NULL:
            e = <Entry>w.own_head
            w.own_head = e.next
            e.next = NULL
            if w.own_head == NULL:
                self.owns_nothing(w)
        gcp_unlock(&self.lock)
        self.set_disposes(w, e is not None)
        return e

    cdef void set_disposes(self, Waiter w, bint disposes) noexcept:
        gcp_lock(&w.pool.lock)
        w.disposes = disposes
        gcp_unlock(&w.pool.lock)

    cdef void disown(self, Waiter w) noexcept:
        # It goes, and did not dispose of what it kept: whoever comes by does that.
        if w.pool.generation != self.generation:
            return
        gcp_lock(&self.lock)
        if w.own_head != NULL:
            self.share(w)
        gcp_unlock(&self.lock)

    def doom_again(self, Entry e not None):
        """Put back what :py:meth:`take_doomed` gave: its dispose was not begun, and its taker cannot do it."""
        pool_of(e)
        if e.generation != self.generation:
            return
        gcp_lock(&self.lock)
        gcp_assert(e.state == CLOSING)
        self.queue_doomed(e)
        gcp_unlock(&self.lock)

    cpdef disposed(self, Entry e, Waiter w=None):
        """The dispose of a connection has ended, one way or the other: its slot is free.

        :param w: who keeps what is doomed at that, for the next one who waits
        """
        cdef EndpointPool ep = pool_of(e)
        cdef void *chain
        cdef void *served = NULL
        cdef void *tail
        cdef bint keep
        if e.generation != self.generation:
            return
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        gcp_assert(e.state == CLOSING)
        tail = self.doomed_tail
        e.state = GONE
        if e.helps:
            e.helps = False
            if e.help_epoch == self.help_epoch:
                self.helping_now -= 1
            elif e.help_epoch == self.help_epoch - 1:
                self.helping_before -= 1
        keep = e.forced
        if e.heap_index >= 0:
            self.expiry.remove(<void *>e)
            self.set_due()
        e.heap_key = INFINITY
        ep.closing -= 1
        ep.size -= 1
        self.closing -= 1
        gcp_store_int(&self.size, self.size - 1)
        self.disposed_ += 1
        if not keep:
            map_remove(&self.by_connection, <size_t><void *>e.conn_, <void *>e)
        gcp_unlock(&ep.lock)
        if w is not None and w.pool is not None:
            self.set_disposes(w, w.own_head != NULL)
            served = self.serve_idler(w)
        chain = self.after_slot_freed(ep)
        if served != NULL:
            (<Waiter>served).next = chain
            chain = served
        self.own(w, tail)
        gcp_unlock(&self.lock)
        if not keep:
            self.entries.discard(e)
        notify_all(chain)

    cdef void *serve_idler(self, Waiter w) noexcept:
        # The slot that a thread's acquire has freed is its endpoint's if all who wait at the one that comes first are
        # held up by disposes of their own, and could not use it. self.lock is held, no other. Returns whom to notify.
        cdef EndpointPool ep = w.pool
        cdef EndpointPool first
        cdef void *p
        cdef bint busy
        if self.starving.used == 0 or self.size >= self.total_max_size:
            return NULL
        first = <EndpointPool>self.starving.items[0].item
        if first is ep:
            return NULL
        gcp_lock(&first.lock)
        p = first_free(first)
        busy = p != NULL and (<Waiter>p).disposes
        gcp_unlock(&first.lock)
        if not busy:
            return NULL
        gcp_lock(&ep.lock)
        p = first_free(ep)
        if p == NULL or (<Waiter>p).disposes or ep.size >= self.max_size:
            p = NULL
        else:
            Py_INCREF(<Waiter>p)
            waiter_unlink(ep, p)
            self.serve_ticket(ep, <Waiter>p)
            self.starve(ep)
        gcp_unlock(&ep.lock)
        return p

    cpdef int expired(self, double now, int limit) except -1:
        """Put the idle connections that are due among the doomed, in the order of their deadlines.

        :param limit: how many at most; 0 for ``int(log2(size + 1)) + 1`` (generic-connection-pool)
        :return: how many
        """
        cdef int found = 0
        cdef int size
        cdef void *p
        gcp_lock(&self.lock)
        if limit <= 0:
            limit = 1
            size = self.size + 1
            while size > 1:
                size >>= 1
                limit += 1
        while found < limit:
            p = self.evict(now)
            if p == NULL:
                break
            self.help(p)
            found += 1
        gcp_unlock(&self.lock)
        return found

    def next_due(self):
        """When the next idle connection will be due, or None if none ever will: the collector may sleep till then."""
        cdef double due
        cdef void *p
        cdef EndpointPool ep
        gcp_lock(&self.lock)
        p = self.settle(INFINITY)
        if p != NULL:
            ep = (<Entry>p).pool
            gcp_unlock(&ep.lock)
        self.set_due()
        due = self.due_at
        self.wake_at = due
        gcp_unlock(&self.lock)
        return None if due >= NEVER else due

    # -- the pool's end, and changes of its limits --------------------------------------------------------------------

    cdef list endpoint_pools(self):
        cdef list found = []
        cdef list room
        cdef Py_ssize_t used, n
        cdef size_t version, i
        cdef int s
        cdef Table *t
        for s in range(GCP_SHARDS):
            # Appending may collect garbage, that is run code that changes the table: then the shard is read again.
            while True:
                t = &self.by_hash.tables[s]
                gcp_lock(&self.by_hash.locks[s])
                version = t.version
                used = <Py_ssize_t>t.used
                gcp_unlock(&self.by_hash.locks[s])
                room = [None] * used
                gcp_lock(&self.by_hash.locks[s])
                if t.version == version:
                    n = 0
                    if t.slots != NULL:
                        for i in range(t.mask + 1):
                            if t.slots[i].value != NULL:
                                room[n] = <EndpointPool>t.slots[i].value
                                n += 1
                    gcp_unlock(&self.by_hash.locks[s])
                    found.extend(room)
                    break
                gcp_unlock(&self.by_hash.locks[s])
        return found

    def close(self):
        """Refuse all that comes, refuse those who wait, doom what is idle. What is out is closed when it comes back."""
        cdef EndpointPool ep
        cdef Waiter w
        cdef void *p
        cdef void *chain
        cdef void **end
        failure = None
        gcp_lock(&self.lock)
        gcp_store_int(&self.is_closed, 1)
        # A thread that hangs in one dispose must not keep others from what else it would have to dispose of.
        while self.owners != NULL:
            self.share(<Waiter>self.owners)
        gcp_unlock(&self.lock)
        # Endpoint pools that appear from here on are empty: request() refuses.
        for ep in self.endpoint_pools():
            chain = NULL
            end = &chain
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            while ep.waiter_head != NULL:
                w = <Waiter>ep.waiter_head
                Py_INCREF(w)
                waiter_unlink(ep, <void *>w)
                w.state = REFUSED
                end[0] = <void *>w
                end = &w.next
            self.starve(ep)
            while True:
                p = ep.core_head
                if p == NULL:
                    p = ep.extra_head
                if p == NULL:
                    break
                idle_unlink(ep, p)
                self.doom(ep, <Entry>p)
            self.forget_if_empty(ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            try:
                notify_all(chain)
            except BaseException as exc:    # the other endpoints' waiters must not wait on
                if failure is None:
                    failure = exc
            w = None        # it may go with that, and not under the lock
        if failure is not None:
            raise failure

    def watch_empty(self, Waiter w not None):
        """Have a waiter notified when the pool has no connection left.

        :return: False when that is so already
        """
        cdef bint queued = False
        gcp_lock(&self.lock)
        if self.size:
            Py_INCREF(w)        # the list's reference
            w.next = self.closers
            self.closers = <void *>w
            w.state = QUEUED
            queued = True
        gcp_unlock(&self.lock)
        return queued

    def unwatch_empty(self, Waiter w not None):
        """Take a waiter out again.

        :return: True when it was still waiting, so that it will not be notified
        """
        cdef void **link
        cdef bint found = False
        gcp_lock(&self.lock)
        link = &self.closers
        while link[0] != NULL and not found:
            if link[0] == <void *>w:
                link[0] = w.next
                w.next = NULL
                w.state = CANCELLED
                found = True
            else:
                link = &(<Waiter>link[0]).next
        gcp_unlock(&self.lock)
        if found:
            Py_DECREF(w)
        return found

    def doom_acquired(self):
        """Doom every connection that is out, the oldest first; its release will do nothing.

        :return: how many
        """
        cdef Entry e
        cdef EndpointPool ep
        cdef int count = 0
        # The set alone has them in the order of their addresses, which differs from run to run.
        for e in sorted(self.own_entries(), key=lambda x: (<Entry>x).expires_at):
            ep = e.pool
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            if e.state == ACQUIRED or e.state == RELEASING:
                ep.acquired -= 1
                e.forced = True
                self.doom(ep, e)
                count += 1
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        return count

    def resize(self, *, min_idle=None, max_size=None, total_max_size=None):
        """Change the limits. Room that appears goes to those who wait; what is idle beyond a lower limit is doomed,
        what is out beyond it is closed when it comes back."""
        cdef EndpointPool ep
        cdef void *chain
        cdef void *p
        cdef int min_idle_ = -1 if min_idle is None else min_idle
        cdef int max_size_ = -1 if max_size is None else max_size
        cdef int total_ = -1 if total_max_size is None else total_max_size
        gcp_lock(&self.lock)
        if min_idle_ < 0:
            min_idle_ = self.min_idle
        if max_size_ < 0:
            max_size_ = self.max_size
        if total_ < 0:
            total_ = self.total_max_size
        self.shrunk = self.shrunk or max_size_ < self.max_size or total_ < self.total_max_size
        gcp_store_int(&self.min_idle, min_idle_)
        gcp_store_int(&self.max_size, max_size_)
        gcp_store_int(&self.total_max_size, total_)
        gcp_unlock(&self.lock)
        for ep in self.endpoint_pools():
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            while ep.size - ep.closing > self.max_size:
                p = ep.extra_head
                if p == NULL:
                    p = ep.core_head
                if p == NULL:
                    break
                idle_unlink(ep, p)
                self.doom(ep, <Entry>p)
            if not ep.forgotten:
                self.starve(ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        gcp_lock(&self.lock)
        while self.size - self.closing > self.total_max_size and self.evict(INFINITY) != NULL:
            pass
        chain = self.dispatch()
        gcp_unlock(&self.lock)
        notify_all(chain)

    # -- looking --------------------------------------------------------------------------------------------------

    @property
    def closed(self):
        """Whether :py:meth:`close` was called."""
        return bool(gcp_load_int(&self.is_closed))

    @property
    def acquired(self):
        """How many connections are out."""
        return self.stats()['acquired']

    def endpoint_size(self, object endpoint, object acquired=None):
        """How many connections an endpoint has: all (None), out (True), idle (False); 0 for an unknown endpoint."""
        cdef EndpointPool ep = self.find(endpoint)
        cdef int result
        if ep is None:
            hash_of(endpoint)       # an empty pool has not looked whether it is an endpoint at all
            return 0
        gcp_lock(&ep.lock)
        if acquired is None:
            result = ep.size
        elif acquired:
            result = ep.acquired
        else:
            result = ep.core_idle + ep.extra_idle
        gcp_unlock(&ep.lock)
        return result

    def stats(self):
        """Gauges and counters of the whole pool, as a dict of ints."""
        cdef EndpointPool ep
        cdef unsigned long long acquires
        cdef int idle = 0, acquired = 0, waiting = 0, endpoints = 0
        pools = self.endpoint_pools()
        gcp_lock(&self.lock)
        acquires = self.acquires
        gcp_unlock(&self.lock)
        for ep in pools:
            gcp_lock(&ep.lock)
            if not ep.forgotten:
                endpoints += 1
                acquires += ep.acquires
                idle += ep.core_idle + ep.extra_idle
                acquired += ep.acquired
                waiting += ep.waiting
            gcp_unlock(&ep.lock)
        return {
            'size': self.size,
            'idle': idle,
            'acquired': acquired,
            'waiting': waiting,
            'endpoints': endpoints,
            'acquires': acquires,
            'created': self.created_,
            'create_errors': self.create_errors,
            'dead': self.dead_,
            'broken': self.broken_,
            'disposed': self.disposed_,
            'waits': self.waits,
            'timeouts': self.timeouts,
        }

    def check_invariants(self):
        """Walk through everything and raise AssertionError where the books do not balance. For tests, at rest."""
        cdef EndpointPool ep
        cdef Entry e
        cdef void *p
        cdef int total = 0, closing = 0, in_heap = 0, wanting = 0, needing = 0, helps = 0
        cdef Py_ssize_t i
        cdef dict counts
        problems = []
        pools = self.endpoint_pools()
        by_pool = {}
        for e in self.own_entries():
            if e.state != GONE:
                by_pool.setdefault(id(e.pool), []).append(e)
            elif not e.forced:
                problems.append(f'{e!r} is gone and still owned')
        for ep in pools:
            counts = dict.fromkeys(range(6), 0)
            for e in by_pool.pop(id(ep), ()):
                counts[e.state] += 1
                if e.state == CLOSING and e.helps and e.help_epoch >= self.help_epoch - 1:
                    helps += 1
                if e.state != CREATING and <Entry>map_get(&self.by_connection, <size_t><void *>e.conn_) is not e:
                    problems.append(f'{e!r} is not found by its connection')
                if e.state == IDLE and e.heap_index < 0:
                    problems.append(f'{e!r} is idle and not in the expiry queue')
                if e.heap_index >= 0:
                    in_heap += 1
                    if self.expiry.items[e.heap_index].item != <void *>e:
                        problems.append(f'{e!r} is not at its place in the expiry queue')
                    if self.expiry.items[e.heap_index].key != e.heap_key:
                        problems.append(f'{e!r} has another key in the expiry queue')
                    if e.state == IDLE and e.heap_key > (
                        e.expires_at if e.is_core else min(e.expires_at, e.used_at + self.idle_timeout)
                    ):
                        problems.append(f'{e!r} is queued later than its deadline')
            listed = []
            p = ep.core_head
            while p != NULL:
                listed.append(<Entry>p)
                p = (<Entry>p).next
            if len(listed) != ep.core_idle:
                problems.append(f'{ep!r} counts {ep.core_idle} core connections and lists {len(listed)}')
            p = ep.extra_head
            while p != NULL:
                listed.append(<Entry>p)
                p = (<Entry>p).next
            if len(listed) != ep.core_idle + ep.extra_idle or counts[IDLE] != len(listed):
                problems.append(
                    f'{ep!r}: {ep.core_idle}+{ep.extra_idle} idle, {len(listed)} listed, {counts[IDLE]} owned'
                )
            waiting = 0
            last = 0
            p = ep.waiter_head
            while p != NULL:
                waiting += 1
                if (<Waiter>p).number <= last or (<Waiter>p).state != QUEUED:
                    problems.append(f'{ep!r}: the queue is out of order')
                last = (<Waiter>p).number
                p = (<Waiter>p).next
            if waiting != ep.waiting:
                problems.append(f'{ep!r} counts {ep.waiting} waiters and lists {waiting}')
            if counts[ACQUIRED] + counts[RELEASING] != ep.acquired or counts[CLOSING] != ep.closing:
                problems.append(f'{ep!r}: acquired {ep.acquired}, closing {ep.closing}, owned {counts}')
            if ep.size != ep.core_idle + ep.extra_idle + ep.acquired + ep.creating + ep.closing:
                problems.append(f'{ep!r}: the size is not the sum of its parts')
            if ep.size > self.max_size and not self.shrunk:
                problems.append(f'{ep!r} has more than max_size connections')
            if ep.size == 0 and ep.waiting == 0:
                problems.append(f'{ep!r} is empty and not forgotten')
            if ep.waiting and ep.core_idle + ep.extra_idle:
                problems.append(f'{ep!r}: somebody waits beside an idle connection')
            if ep.waiting and ep.size < self.max_size:
                wanting += 1
                needing += not (<Waiter>first_free(ep)).disposes
                if ep.heap_index < 0:
                    problems.append(f'{ep!r}: somebody waits for a slot and is not known to')
            total += ep.size
            closing += ep.closing
        if by_pool:
            problems.append(f'entries of unknown endpoints: {by_pool}')
        for i in range(1, self.expiry.used):
            if before(&self.expiry.items[i], &self.expiry.items[(i - 1) >> 1]):
                problems.append('the expiry queue is not a heap')
        for i in range(1, self.starving.used):
            if before(&self.starving.items[i], &self.starving.items[(i - 1) >> 1]):
                problems.append('the queue of endpoints is not a heap')
        if in_heap != self.expiry.used:
            problems.append(f'{self.expiry.used} in the expiry queue, {in_heap} of them owned')
        if total != self.size or closing != self.closing:
            problems.append(f'sizes {total}, {closing} by endpoint, {self.size}, {self.closing} in all')
        if self.size > self.total_max_size and not self.shrunk:
            problems.append('more than total_max_size connections')
        if wanting and self.size < self.total_max_size:
            problems.append('somebody waits for a slot, and there is one')
        if helps != self.helping_now + self.helping_before:
            problems.append(f'{helps} help, {self.helping_now} and {self.helping_before} are counted')
        if helps < needing and any((<EndpointPool>x).core_idle + (<EndpointPool>x).extra_idle for x in pools):
            problems.append('somebody waits for a slot beside an idle connection of another endpoint')
        if problems:
            raise AssertionError('; '.join(problems))


cdef inline Py_hash_t hash_of(object endpoint) except? -1:
    try:
        return PyObject_Hash(endpoint)
    except TypeError as exc:
        raise TypeError(f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object') from exc


include "_facades.pxi"
