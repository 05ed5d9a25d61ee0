# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, auto_pickle=False
# cython: freethreading_compatible=True
"""The compiled core: the state machine of a connection pool, and the hot path of both facades.

``PoolCore`` decides and does no I/O: it never blocks, never calls a connection manager, runs no user code while it
holds a lock, and receives the time from its caller. A facade calls it (request, created, create_failed, release,
cancel, doom_due, close), and carries out its decisions: connects for a *ticket*, waits for a *waiter* to be notified,
closes what is *doomed*.

``SyncPool`` and ``AsyncPool`` are the compiled bases of the facades: acquire, release and the context manager, as far
as they need not wait.
"""

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

from functools import update_wrapper
from numbers import Real
from types import CoroutineType

from gcpool._answers import check_answer, refuse_connection
from gcpool._coroutines import acquired, discarded, not_discarded, not_released, released
from gcpool._signal_handlers import is_of_signal_handler
from gcpool._statistics import Histogram as TimeHistogram
from gcpool._statistics import PoolStats
from gcpool.exceptions import (
    ConnectError,
    ConnectionNotAcquired,
    ConnectionPoolClosedError,
    DiscardConnection,
    EventLoopMismatch,
)
from gcpool.managers import ROLLED_BACK
from gcpool.observers import PoolEvent

__all__ = [
    'AsyncConnectionContext',
    'AsyncPool',
    'EndpointPool',
    'Entry',
    'PoolCore',
    'SyncConnectionContext',
    'SyncPool',
    'Waiter',
    'monotonic',
]

cdef enum:          # Entry.state
    CREATING        # a ticket: the slot is reserved, its holder is connecting
    IDLE_CORE
    IDLE_EXTRA
    ACQUIRED
    RELEASING       # still checked out: its on_release hook is running
    CLOSING         # doomed, or being closed; the entry keeps its slot until the close has ended
    CHECKING        # the pool checks it in the background, or is about to; no acquire is served it meanwhile
    GONE

cdef enum:          # PoolCore.restrictions, bits. If one is set, each acquire and release takes core.lock
    NOT_OPEN = 1
    SUSPENDED = 2   # no acquire is served
    FAILING = 4     # with SUSPENDED: acquires that begin are refused
    RESUMING = 8    # waiters are served the connections that became idle while the pool was suspended
    CLOSED = 16

cdef enum:          # Waiter.state
    FRESH
    QUEUED
    SERVED
    REFUSED         # the pool is closed, or not open yet, or suspended: see Waiter.refusal
    TURNED_AWAY     # too many waiters were already queued
    FAILED          # no connection could be created for it: Waiter.error
    ENDPOINT_DOWN   # the same, and nothing was tried: the endpoint is in an outage
    CANCELLED
    BEING_FREED     # out of the queue; the destructor, which runs in another thread, does the rest of dequeue()

# Why a connection is closed: the texts of the reasons, by their numbers.
REASONS = (
    '', 'idle', 'lifetime', 'max_uses', 'broken', 'dead', 'discarded', 'drained', 'shrunk', 'evicted', 'pool_closed',
)

STATES = ('creating', 'idle', 'idle', 'acquired', 'releasing', 'closing', 'checking', 'gone')


# ---------------------------------------------------------------------------------------------------------------------
# The engine decides: no I/O, no clock, no user code under a lock
# ---------------------------------------------------------------------------------------------------------------------

# Lists whose members hold the links.
include "_engine/list.pxi"
# Hash tables, address or hash -> object, split into shards.
include "_engine/table.pxi"
# Heaps whose members know their places.
include "_engine/heap.pxi"
# The record of one connection.
include "_engine/entry.pxi"
# The entries and waiters of one endpoint.
include "_engine/endpoint.pxi"
# One acquire in progress, and how it is notified.
include "_engine/waiter.pxi"
# From an endpoint to its endpoint pool; from a connection to its entry.
include "_engine/directory.pxi"
# Several endpoints that count as one.
include "_engine/spellings.pxi"
# The expiry queue: what is due, when the next is, and who is notified.
include "_engine/deadlines.pxi"
# Which idle connection is closed for another endpoint.
include "_engine/eviction.pxi"
# How many jobs workers may do at the same time, and which come first.
include "_engine/jobs.pxi"
# Which connections are closed, and by whom.
include "_engine/disposal.pxi"
# Why some releases have to take the pool's lock.
include "_engine/release_watches.pxi"
# How many connections are being closed for endpoints that want a slot.
include "_engine/relief.pxi"
# Whether an endpoint can be connected to: outages, and when the next attempt is due.
include "_engine/outages.pxi"
# Connections that the pool itself creates: which endpoints it does that for,
include "_engine/growth.pxi"
# up to which minimum,
include "_engine/minimums.pxi"
# to which pinned endpoints,
include "_engine/pins.pxi"
# which slots it has reserved for that,
include "_engine/reserved.pxi"
# and how such a create proceeds.
include "_engine/creates.pxi"
# Who was overtaken, and for how long.
include "_engine/overtaking.pxi"
# The dispatcher: who gets a free slot.
include "_engine/slots.pxi"
# Timed actions.
include "_engine/timers.pxi"
# A signal handler that acquires while its own thread waits.
include "_engine/nesting.pxi"
# An acquire: its result, and its end.
include "_engine/acquiring.pxi"
# The connect of an acquire, and how it ends.
include "_engine/connects.pxi"
# A release: what happens to the connection.
include "_engine/releasing.pxi"
# Checks that the pool makes in the background.
include "_engine/checking.pxi"
# When an idle connection must be checked.
include "_engine/keepalive.pxi"
# Takes unfit connections out of use.
include "_engine/health.pxi"
# A connection that is ready now, or none; discard and detach.
include "_engine/taking.pxi"
# The books in a forked child.
include "_engine/fork.pxi"
# What the representation of an entry shows of its endpoint.
include "_engine/showing.pxi"
# suspend() and resume().
include "_engine/suspension.pxi"
# drain().
include "_engine/draining.pxi"
# open(), close() and resize().
include "_engine/lifecycle.pxi"
# Who waits for a close, for the end of a use, or for the pool to be empty.
include "_engine/watchers.pxi"
# How long: histograms,
include "_engine/histograms.pxi"
# gauges and counters.
include "_engine/statistics.pxi"
# The gauges of all endpoints at once.
include "_engine/overview.pxi"
# How long connections are in use now.
include "_engine/holding.pxi"
# who holds them, and where they were acquired.
include "_engine/holder_records.pxi"
# Whether an acquire would be served now.
include "_engine/readiness.pxi"
# The parameters of a core, and its end.
include "_engine/construction.pxi"
# PoolCore: the calls of a facade.
include "_engine/pool.pxi"
# Whether the books balance; for tests.
include "_engine/invariants.pxi"

# ---------------------------------------------------------------------------------------------------------------------
# The facades: the compiled bases of both pools
# ---------------------------------------------------------------------------------------------------------------------

# A logger whose handlers cannot disturb the pool.
include "_facade/log.pxi"
# What happens to a pool: to whom it is reported, and how.
include "_facade/observer.pxi"
# Seconds: the clock, how long a close may take, which timeouts are valid.
include "_facade/time_limits.pxi"
# The common part of both pools.
include "_facade/base.pxi"
# One acquire of a connection; returns the connection when its holder is freed.
include "_facade/lease.pxi"
# The pool for threads.
include "_facade/threads.pxi"
# How it closes connections, and how it creates and checks them.
include "_facade/threads_closing.pxi"
include "_facade/threads_calls.pxi"
# Its context manager.
include "_facade/threads_context.pxi"
# The event loop that a pool belongs to.
include "_facade/loop.pxi"
# Connections that a task may have without waiting.
include "_facade/ready.pxi"
# The pool for asyncio.
include "_facade/asyncio.pxi"
# Which of its methods count as coroutine functions.
include "_facade/coroutine_marks.pxi"
# Its context manager.
include "_facade/asyncio_context.pxi"
# What a task awaits: a call of the manager.
include "_facade/manager_call.pxi"
# What a task awaits: the rest of a release.
include "_facade/release_coroutine.pxi"
# A connection that is ready now, or none; discard and detach; a release that is not awaited.
include "_facade/taking.pxi"
# A connection in a drop-in's Python code.
include "_facade/hold.pxi"
# A program's function in place of a manager's method.
include "_facade/callables.pxi"
# The coroutines of the pool's tasks: the closes, and the checks.
include "_facade/disposal_tasks.pxi"
include "_facade/check_tasks.pxi"
# Their wrapper, so that a SystemExit of a callback does not end the loop.
include "_facade/guarded.pxi"
# What a task awaits: to be served.
include "_facade/signal.pxi"
