"""What a manager's methods may return. Any other value raises an error that names the method and the manager."""

import sys
from types import CoroutineType

__all__ = ['check_answer', 'refuse_connection']

# The names of numpy's type, and of those that follow it.
_NAMES_OF_BOOLS = frozenset({'bool', 'bool_'})


def check_answer(manager: object, answer: object) -> bool:
    """Return what ``check_aliveness`` has answered, if that is neither True nor False.

    A truth value would hide a mistake: a check without ``return`` calls each connection dead, and a coroutine function
    calls each alive. numpy's booleans count as such, and so does what a mock has made up.

    :raises TypeError: when it is no bool
    """
    mock = sys.modules.get('unittest.mock')
    if type(answer).__name__ in _NAMES_OF_BOOLS or (mock is not None and isinstance(answer, mock.NonCallableMock)):
        return bool(answer)
    raise TypeError(f'check_aliveness() of connection_manager {manager!r} returned {answer!r}: expected a bool')


def refuse_connection(manager: object, conn: object) -> None:
    """Refuse a connection that is None (a ``create`` without ``return``), or a coroutine that was not awaited."""
    text = repr(conn)
    if isinstance(conn, CoroutineType):
        conn.close()  # otherwise Python warns that it was never awaited, too
    raise TypeError(f'create() of connection_manager {manager!r} returned {text}: expected a connection')
