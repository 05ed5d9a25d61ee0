@cython.final
cdef class CallableWithTimeout:
    """A function that a program gave in place of a manager's method, and that may take a time limit.

    Compiled, because in a Python function a signal handler could raise between the return of the program's ``create``
    and the end of that function: the connection would be lost.

    :param function: the program's function
    :param count: how many arguments it takes, not counting ``timeout``
    :param takes_timeout: whether it has a parameter ``timeout``
    :param requires_timeout: whether that has no default; otherwise it is left out if there is no limit
    """
    cdef object function
    cdef int count
    cdef bint takes_timeout
    cdef bint requires_timeout

    def __init__(self, function, int count, bint takes_timeout, bint requires_timeout):
        self.function = function
        self.count = count
        self.takes_timeout = takes_timeout
        self.requires_timeout = requires_timeout

    def __call__(self, *args, timeout=None):
        if len(args) > self.count:      # check_aliveness() is passed it by position
            timeout = args[self.count]
            args = args[:self.count]
        if self.takes_timeout and (timeout is not None or self.requires_timeout):
            return self.function(*args, timeout=timeout)
        return self.function(*args)

    def __repr__(self):
        return repr(self.function)
