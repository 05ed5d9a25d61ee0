"""Finds the methods of a manager whose names look like a misspelt hook: nobody would ever call them."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ['HOOKS', 'check_hook_names']

# The optional methods. create() and dispose() are missed without this.
HOOKS = (
    'normalize',
    'check_aliveness',
    'on_acquire',
    'on_release',
    'on_connection_dead',
    'is_broken',
    'is_refusal',
    'is_hopeless',
    'describe_endpoint',
)

# From this length on, a name may differ in two letters.
_LONG = 12


def check_hook_names(manager: object) -> None:
    """Refuse a manager that has a method whose name is nearly that of a hook, and not that hook.

    :raises TypeError: with the name that was probably meant
    """
    methods = dict(_own_methods(type(manager)))
    for name in methods:
        for hook in HOOKS:
            if hook not in methods and name not in HOOKS and _is_close(name, hook):
                raise TypeError(
                    f'{name}() of connection_manager {manager!r} looks like a misspelt {hook}(), and is never called: '
                    f'expected {hook}(), or a name that is less close to it'
                )


def _own_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    # The public methods of the manager's class and its bases, up to the first one of this package: those are spelt
    # right, and what they call their methods is their own affair.
    for base in cls.__mro__:
        if base.__module__.partition('.')[0] == 'gcpool':
            return
        for name, value in vars(base).items():
            if not name.startswith('_') and callable(value):
                yield name, value


def _is_close(name: str, hook: str) -> bool:
    # onAcquire and on_acquire are the same name.
    limit = 1 + (len(hook) >= _LONG)
    return _differ_little(name.lower().replace('_', ''), hook.replace('_', ''), limit)


def _differ_little(a: str, b: str, limit: int) -> bool:
    # Whether at most this many letters have to be added, left out, replaced, or swapped with the next one.
    if abs(len(a) - len(b)) > limit:
        return False
    i = 0
    while i < len(a) and i < len(b) and a[i] == b[i]:
        i += 1
    a, b = a[i:], b[i:]
    if not limit or not a or not b:
        return len(a) + len(b) <= limit
    return (
        _differ_little(a[1:], b, limit - 1)
        or _differ_little(a, b[1:], limit - 1)
        or _differ_little(a[1:], b[1:], limit - 1)
        or (a[:2] == b[1::-1] and _differ_little(a[2:], b[2:], limit - 1))
    )
