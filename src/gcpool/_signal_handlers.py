"""Whether a signal handler has raised an exception, or the code that the handler has interrupted."""

from collections.abc import Iterator
from types import FrameType

__all__ = ['is_of_signal_handler']

# The flag of the code of a function with *args: inspect.CO_VARARGS.
_CO_VARARGS = 0x04


def is_of_signal_handler(exc: BaseException) -> bool:
    """Return whether a signal handler has raised an exception, also where it has interrupted a callback.

    A handler that calls ``sys.exit()`` ends the program, wherever the program is at that time. A callback must not. A
    handler is recognised by its arguments: one of them is the frame that it has interrupted, and that frame is part of
    the traceback. A handler that is not written in Python is not recognised.

    :param exc: an exception that is being handled
    """
    interrupted: set[int] = set()
    traceback = exc.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if any(id(value) in interrupted for value in _frames_given(frame)):
            return True
        interrupted.add(id(frame))
        traceback = traceback.tb_next
    return False


def _frames_given(frame: FrameType) -> Iterator[FrameType]:
    # The frames among the arguments of a function, also among those that it takes as *args.
    code, variables = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _CO_VARARGS)
    for name in code.co_varnames[:count]:
        value = variables.get(name)
        for given in value if type(value) is tuple else (value,):
            if isinstance(given, FrameType):
                yield given
