"""Exceptions as signal handlers raise them, at each place where the interpreter looks for signals, one place at a time.

That is where a function begins or a coroutine goes on, after each call of something that is not written in Python, and
at each jump back. A tracer raises there, which needs no signals and no luck.
"""

import asyncio
import dis
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['Interruption', 'Interruptor']

# After these the interpreter looks for signals; 3.11 does so after CALL only, and not after its PRECALL.
LOOKED_AFTER = {
    *('CALL', 'CALL_KW', 'CALL_FUNCTION_EX', 'CALL_FUNCTION', 'CALL_FUNCTION_KW', 'CALL_METHOD'),
    *('JUMP_BACKWARD', 'JUMP_ABSOLUTE'),
}


class Interruption(BaseException):
    """What a signal handler raises."""


def _current_task() -> 'asyncio.Task[Any] | None':
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Interruptor:
    """Raises at one of the places that code of a directory, or of some functions, passes while this is entered.

    On asyncio only in the task that has entered it: nobody awaits the tasks of a pool.

    :param number: which of them, from 0
    :param directory: whose code is interrupted
    :param functions: the code of these, too
    :ivar place: where it has raised; None if the code has passed fewer places
    """

    def __init__(self, number: int, directory: Path, *functions: Callable[..., Any]) -> None:
        self._left = number
        self._directory = str(directory)
        self._codes: set[CodeType] = {function.__code__ for function in functions}
        self._last: dict[FrameType, str] = {}
        # Where one Python function returns to another, the interpreter does not look for signals.
        self._has_returned = False
        self.place: str | None = None

    def __enter__(self) -> 'Self':
        self._task = _current_task()
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_exc: object) -> None:
        sys.settrace(None)
        self._last.clear()

    def _on_call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if self.place is not None:
            return None
        code = frame.f_code
        if code not in self._codes and not code.co_filename.startswith(self._directory):
            return self._on_return
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self._pass(frame)
        return self._on_event

    def _on_return(self, _frame: FrameType, event: str, _arg: object) -> Any:
        self._has_returned = self._has_returned or event == 'return'
        return self._on_return

    def _on_event(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == 'return':
            self._last.pop(frame, None)
            self._has_returned = True
        elif event == 'opcode':
            if self._last.get(frame) in LOOKED_AFTER and not self._has_returned:
                self._pass(frame)
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            self._has_returned = False
        return self._on_event

    def _pass(self, frame: FrameType) -> None:
        if _current_task() is not self._task:
            return
        if self._left:
            self._left -= 1
            return
        if self.place is None:
            self.place = f'{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})'
            sys.settrace(None)
            raise Interruption
