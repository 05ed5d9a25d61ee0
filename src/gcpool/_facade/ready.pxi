@cython.final
cdef class ReadyConnections:
    """The connections of a pool that need no check and no hook.

    ``ready[endpoint]`` takes one of them, and is ``ready`` itself if there is none. It is a subscription because after
    a call the interpreter checks for signals: a handler that raised there would lose the connection. It does not check
    after a subscription, nor from there to the end of a coroutine that returns the connection.
    """

    def __getitem__(self, endpoint):
        cdef Entry e = self.take(endpoint)
        return self if e is None else e.conn_

    cdef inline Entry take(self, object endpoint):
        cdef double now
        if self.own_loop is None:
            raise RuntimeError(NO_POOL)
        self.own_loop.check()
        if gcp_unlikely(self.asks_before_use):
            return self.take_noting_holder(endpoint)
        if gcp_unlikely(endpoint is UNSET_ENDPOINT):    # without a default one none is found, and the slow path raises
            endpoint = self.default_endpoint
        now = gcp_monotonic_coarse() if uses_system_clock(self.core) else ask_clock(self.core)
        return entry_or_none(take_idle(self.core, endpoint, now, self.trusted_for, TAKEN_ENTRY))

    cdef Entry take_noting_holder(self, object endpoint):
        cdef Entry e
        if self.needs_manager:
            return None
        if endpoint is UNSET_ENDPOINT:
            endpoint = self.default_endpoint
        e = entry_or_none(take_idle(self.core, endpoint, read_clock(self.core), self.trusted_for, TAKEN_ENTRY))
        if e is not None:
            note_holder_or_release(self.core, e)
        return e
