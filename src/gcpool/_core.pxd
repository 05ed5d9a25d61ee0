# Declarations of the compiled core. The comment of every mutable field shows which lock guards it:
#   [core]     PoolCore.lock
#   [ep]       EndpointPool.lock of the endpoint pool concerned
#   [core+ep]  written under both, so it may be read under either
#   [shard]    the lock of the shard concerned, of a Map
#   [cores_lock]  the lock of the list of all cores
#   [owner]    only the thread or task that owns the object
#   [loop]     only the thread of the event loop that the pool belongs to
#   [atomic]   no lock: changed by compare-and-exchange
#   [relaxed]  no lock: relaxed atomics
#
# Locks are taken in the order core, endpoint pool, shard, and at most one of each kind at a time. On a build with the
# GIL the locks are empty macros: a locked region runs no Python code, so the GIL makes it atomic.
#
# The declarations of each part stand beside it.

include "_engine/platform.pxd"
include "_engine/list.pxd"
include "_engine/table.pxd"
include "_engine/fork.pxd"
include "_engine/relief.pxd"
include "_engine/overtaking.pxd"
include "_engine/heap.pxd"
include "_engine/release_watches.pxd"
include "_engine/deadlines.pxd"
include "_engine/jobs.pxd"
include "_engine/checking.pxd"
include "_engine/statistics.pxd"
include "_engine/histograms.pxd"
include "_engine/holder_records.pxd"

cdef class PoolCore
cdef class EndpointPool(HeapMember)
cdef class Entry(HeapMember)
cdef class Growth(HeapMember)

include "_engine/directory.pxd"
include "_engine/spellings.pxd"
include "_engine/endpoint.pxd"
include "_engine/growth.pxd"
include "_engine/entry.pxd"
include "_engine/keepalive.pxd"
include "_engine/waiter.pxd"
include "_engine/pool.pxd"

include "_facade/log.pxd"
include "_facade/observer.pxd"
include "_facade/base.pxd"
include "_facade/lease.pxd"
include "_facade/threads.pxd"
include "_facade/loop.pxd"
include "_facade/ready.pxd"
include "_facade/asyncio.pxd"
include "_facade/manager_call.pxd"
include "_facade/release_coroutine.pxd"
include "_facade/hold.pxd"
include "_facade/disposal_tasks.pxd"
include "_facade/check_tasks.pxd"
include "_facade/signal.pxd"
