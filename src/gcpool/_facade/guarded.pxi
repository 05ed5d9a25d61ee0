@cython.final
cdef class Guarded(ManagerCall):
    """The coroutine of a task of the pool's own. What a callback, a hook or a log handler raises does not end the loop.

    asyncio lets SystemExit out of a task, and so out of the run of the loop. Then the pool's work would end, and the
    program with it, because a callback was in error. So SystemExit is logged, and the task ends as if nothing had been
    raised. A signal handler that raises SystemExit, and any KeyboardInterrupt, means the program: these go on.

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
        log.last_resort('the task %s was ended by a SystemExit, and the pool goes on', self.name)
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
