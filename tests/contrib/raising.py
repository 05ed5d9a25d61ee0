"""The ways in which a driver's error reaches the pool: itself, in a group, or as the cause of another."""

import builtins
import sys

import pytest


def bare(exc: Exception) -> BaseException:
    return exc


def in_a_group(exc: Exception) -> BaseException:
    module = builtins if sys.version_info >= (3, 11) else pytest.importorskip('exceptiongroup')
    kind = module.ExceptionGroup
    group: BaseException = kind('outer', [ValueError(), kind('inner', [ValueError(), exc])])
    return group


def as_a_cause(exc: Exception) -> BaseException:
    error = RuntimeError('of a framework')
    error.__cause__ = exc
    return error


HOW_IT_IS_RAISED = pytest.mark.parametrize('wrap', [bare, in_a_group, as_a_cause])
