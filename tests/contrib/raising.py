"""The ways in which a driver's error reaches the pool: itself, in groups, as the cause or context of another."""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def bare(exc: BaseException) -> BaseException:
    return exc


def in_a_group(exc: BaseException) -> BaseException:
    return BaseExceptionGroup('of tasks', [ValueError(), exc])


def in_nested_groups(exc: BaseException) -> BaseException:
    return BaseExceptionGroup('outer', [RuntimeError(), BaseExceptionGroup('inner', [in_a_group(exc)])])


def as_a_cause(exc: BaseException) -> BaseException:
    error = RuntimeError('of a framework')
    error.__cause__ = exc
    return error


def as_a_context(exc: BaseException) -> BaseException:
    error = RuntimeError('raised while that was handled')
    error.__context__ = exc
    return error


def as_the_cause_of_a_member(exc: BaseException) -> BaseException:
    return in_a_group(as_a_cause(exc))


def as_a_member_of_a_cause(exc: BaseException) -> BaseException:
    return as_a_cause(in_nested_groups(exc))


def as_a_member_of_a_context(exc: BaseException) -> BaseException:
    return as_a_context(in_nested_groups(exc))


Wrap = Callable[[BaseException], BaseException]

WAYS: list[Wrap] = [
    *(bare, in_a_group, in_nested_groups, as_a_cause, as_a_context),
    *(as_the_cause_of_a_member, as_a_member_of_a_cause, as_a_member_of_a_context),
]
HOW_IT_IS_RAISED = pytest.mark.parametrize('wrap', WAYS)

CaseT = TypeVar('CaseT')


def raised(cases: Iterable[CaseT], *, in_all_ways: Iterable[CaseT]) -> list[tuple[Wrap, CaseT]]:
    """Each case with the error itself, some in each other way, too: what it leads to when it was found is the same."""
    return [*((bare, case) for case in cases), *((wrap, case) for case in in_all_ways for wrap in WAYS[1:])]
