"""Exceptions as signal handlers raise them, without signals and without luck.

:py:func:`interrupt` raises in one method; :py:class:`Interruptor` at each place where the interpreter looks for
signals, one place at a time: where a function begins or a coroutine goes on, after each call of something that is not
written in Python, and at each jump back.
"""

import asyncio
import dis
import inspect
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import Interruption

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['Interruptor', 'interrupt']

# After these the interpreter looks for signals; 3.11 does so after CALL only, and not after its PRECALL.
LOOKED_AFTER = {
    *('CALL', 'CALL_KW', 'CALL_FUNCTION_EX', 'CALL_FUNCTION', 'CALL_FUNCTION_KW', 'CALL_METHOD'),
    *('JUMP_BACKWARD', 'JUMP_ABSOLUTE'),
}


def interrupt(
    owner: object,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after: int = 0,
    when: Callable[[], bool] = lambda: True,
    at_end: bool = False,
) -> list[Interruption]:
    """Have a signal handler raise in a method, once.

    :param owner: the class or the object
    :param name: the method
    :param after: how often it is called before that
    :param when: calls are not counted while this is False
    :param at_end: whether the method has done its work then
    :return: what was raised; its traceback holds on to all frames that it went through
    """
    method = getattr(owner, name)
    raised: list[Interruption] = []
    calls = itertools.count()

    def look_for_signals(is_end: bool) -> None:
        if is_end == at_end and when() and next(calls) == after:
            raised.append(Interruption(f'in {name}'))
            raise raised[0]

    def call(*args: Any, **kwargs: Any) -> Any:
        look_for_signals(False)
        result = method(*args, **kwargs)
        look_for_signals(True)
        return result

    async def run(*args: Any, **kwargs: Any) -> Any:
        look_for_signals(False)
        result = await method(*args, **kwargs)
        look_for_signals(True)
        return result

    monkeypatch.setattr(owner, name, run if inspect.iscoroutinefunction(method) else call)
    return raised


def _current_task() -> 'asyncio.Task[Any] | None':
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Interruptor:
    """Raises at one of the places that code of a directory, or of some functions, passes while this is entered.

    A tracer raises there.
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
