cdef extern from "Python.h":
    void PyErr_SetObject(object, object)
    void PyErr_WriteUnraisable(object)


@cython.final
cdef class GuardedLogger:
    """A logger whose handlers and filters can do no harm.

    The pool logs most messages between two steps of its work. A handler that raises (it sends to a log server, and that
    is down) must not end this work or its thread, nor reach a user whose connection is fine. So an Exception goes to
    :py:func:`sys.unraisablehook`, which prints it. Any other exception is raised: a ``KeyboardInterrupt`` at that
    moment is meant for the thread.

    Importing :py:mod:`logging` costs more than everything else that a pool for threads needs. So the first warning
    imports it, unless the program has. Messages of lower levels are dropped until then: they cannot have been enabled.

    :param name: the name of the logger, as for :py:func:`logging.getLogger`
    """

    def __init__(self, str name not None):
        self.name = name

    cdef int write(self, str level, object message, tuple args) except -1:
        try:
            if self.logger is None:
                if (level == 'debug' or level == 'info') and 'logging' not in sys.modules:
                    return 0
                import logging
                self.logger = logging.getLogger(self.name)
            getattr(self.logger, level)(message, *args)
        except Exception as exc:
            self.write_unraisable(exc)
        return 0

    cdef bint wants(self, int level) except -1:
        # Whether a message of this level is logged.
        try:
            if self.logger is None:
                if level < 30 and 'logging' not in sys.modules:
                    return False
                import logging
                self.logger = logging.getLogger(self.name)
            return self.logger.isEnabledFor(level)
        except Exception as exc:
            self.write_unraisable(exc)
        return False

    cdef int log(self, int level, str message, tuple args, dict extra, object error) except -1:
        # A message with the attributes that its record gets, and with the traceback of an error, or None.
        try:
            if self.wants(level):
                self.logger.log(level, message, *args, exc_info=error, extra=extra)
        except Exception as exc:
            self.write_unraisable(exc)
        return 0

    cdef int write_unraisable(self, object exc) except -1:
        PyErr_SetObject(type(exc), exc)
        PyErr_WriteUnraisable(self.name if self.logger is None else self.logger)
        return 0

    def debug(self, message, *args):
        """Log at the level ``DEBUG``."""
        self.write('debug', message, args)

    def info(self, message, *args):
        """Log at the level ``INFO``."""
        self.write('info', message, args)

    def warning(self, message, *args):
        """Log at the level ``WARNING``."""
        self.write('warning', message, args)

    def error(self, message, *args):
        """Log at the level ``ERROR``."""
        self.write('error', message, args)

    def last_resort(self, message, *args):
        """Log the exception that is being handled, at the level ``ERROR``. Raises nothing, not even SystemExit.

        For a thread that has to continue.
        """
        try:
            self.write('exception', message, args)
        except BaseException as exc:
            self.write_unraisable(exc)


cdef GuardedLogger log = GuardedLogger('gcpool')
logger = log
