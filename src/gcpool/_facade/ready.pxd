cdef class ReadyConnections:                # set once
    cdef PoolCore core
    cdef OwnLoop own_loop
    cdef object default_endpoint            # PoolFacade._default_endpoint
    cdef double trusted_for                 # PoolFacade.trusted_for
    cdef bint asks_before_use               # PoolFacade.asks_before_use
    cdef bint needs_manager                 # PoolFacade.needs_manager: then no connection is ever ready

    cdef Entry take(self, object endpoint)
    cdef Entry take_noting_holder(self, object endpoint)
