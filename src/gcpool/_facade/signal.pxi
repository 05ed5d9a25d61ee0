@cython.final
cdef class Signal:
    """What a task awaits until it is woken, once. To the task it is an ``asyncio.Future``.

    It is not a Future, because a signal handler may raise inside a Future's ``set_result``, which then does not wake
    the task.
    """

    def __call__(self):
        """Wake the task."""
        if self.rung:
            return
        self.rung = True
        failure = None
        for call in self.calls or ():
            try:
                self.call_soon(call)
            except BaseException as exc:
                if failure is None:
                    failure = exc
        if failure is not None:
            raise failure

    cdef int call_soon(self, list call) except -1:
        try:
            self.schedule_call(call)
        except BaseException:
            if self.loop.is_closed():
                # The task will not run again. When its coroutine is finalised, that gives back its connection.
                return 0
            # A signal handler raised inside call_soon(), before or after the call was scheduled. Scheduling it twice is
            # harmless.
            self.schedule_call(call)
            raise
        return 0

    cdef int schedule_call(self, list call) except -1:
        # A coroutine that is finalised in another thread gives back its connection there. Then only
        # call_soon_threadsafe() wakes the loop.
        if running_loop_or_none() is self.loop:
            self.loop.call_soon(self._run, call, context=call[1])
        else:
            self.loop.call_soon_threadsafe(self._run, call, context=call[1])
        return 0

    @cython.boundscheck(True)
    def _run(self, list call not None):
        callback = call[0]
        call[0] = None
        if callback is not None:
            callback(self)

    def add_done_callback(self, callback, *, context=None):
        """For the task."""
        cdef list call = [callback, context]
        if self.rung:
            self.call_soon(call)
        elif self.calls is None:
            self.calls = [call]
        else:
            self.calls.append(call)

    def cancel(self, msg=None):
        """For the task, when it is cancelled."""
        if self.rung:
            return False
        self.cancelled_ = True
        self.message = msg
        self()
        return True

    def done(self):
        """Whether the signal was set, or cancelled."""
        return self.rung

    def result(self):
        """None, or CancelledError if the signal was cancelled."""
        if self.cancelled_:
            raise CancelledError() if self.message is None else CancelledError(self.message)

    def get_loop(self):
        """The loop that the signal belongs to."""
        return self.loop

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.rung:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration


def signal_in(loop not None):
    """Make a signal for a task of an event loop, after ``load_asyncio()`` was called."""
    cdef Signal signal = Signal.__new__(Signal)
    signal.loop = loop
    return signal
