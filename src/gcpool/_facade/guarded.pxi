@cython.final
cdef class Guarded(ManagerCall):
    """The coroutine of a task of the pool. An exception of a callback, a hook or a log handler does not end the loop.

    asyncio lets SystemExit propagate out of a task, and out of the run of the loop. Then the pool's work would end, and
    the program with it, because of an error in a callback. So SystemExit is logged, and the task ends as if nothing had
    been raised. SystemExit of a signal handler, and any KeyboardInterrupt, are for the program: these propagate.

    :param coroutine: what the task does
    :param name: the name of the task
    """

    cdef object name

    def __init__(self, coroutine, name):
        self.inner = iterator_of(coroutine)
        self.name = name

    cdef int end_quietly(self, object exc) except -1:
        if is_of_signal_handler(exc):
            raise exc
        log.last_resort('the task %s was ended by a SystemExit, and the pool continues', self.name)
        return 0

    def __next__(self):
        return self.send(None)

    def send(self, value):
        try:
            return ManagerCall.send(self, value)
        except SystemExit as exc:
            self.end_quietly(exc)
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        try:
            return ManagerCall.throw(self, kind, value, traceback)
        except SystemExit as exc:
            self.end_quietly(exc)
        raise StopIteration
