"""The pool for threads in programs that gevent has monkey-patched: see ``gevent_programs.py``.

A greenlet that waits lets the others run, and one that is given up (``gevent.Timeout``, ``kill()``), wherever it is in
the pool or in a method of the manager, loses nothing.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, program_environment

pytestmark = pytest.mark.skipif(importlib.util.find_spec('gevent') is None, reason='gevent is not installed')

PROGRAMS = Path(__file__).with_name('gevent_programs.py')


def run(*calls: str, order: str = 'gevent first') -> None:
    """Run programs one after the other, warnings being errors. They say nothing; each is named when it is done.

    :param calls: which ones, called with what
    :param order: what comes before what
    """
    finished = subprocess.run(
        [sys.executable, '-X', 'dev', '-W', 'error', str(PROGRAMS), *calls, order],
        env=program_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    if (finished.returncode, finished.stdout.splitlines()) != (0, list(calls)):
        pytest.fail(f'{calls} ended with {finished.returncode} and said:\n{finished.stdout}', pytrace=False)


@pytest.mark.parametrize('order', ['gevent first', 'gcpool first'])
def test_greenlets_share_connections(order: str) -> None:
    run('share(hooks=False)', 'share(hooks=True)', 'first_come_first_served()', order=order)


def test_nobody_is_passed_over() -> None:
    run('nobody_is_passed_over()')


def test_a_greenlet_that_waits_lets_others_run() -> None:
    run('wait_while_others_run()', 'time_limit()', 'nothing_can_end_the_wait()')


def test_the_core_is_not_locked_while_others_run() -> None:
    run('switches_inside_of_the_core()')


def test_a_greenlet_is_given_up_while_it_waits_or_holds_a_connection() -> None:
    run(
        'give_up_waiting(kill=False)',
        'give_up_waiting(kill=True)',
        'killed_when_served()',
        'killed_while_it_holds_one()',
    )


@pytest.mark.parametrize('kill', [False, True])
def test_a_greenlet_is_given_up_inside_of_a_method_of_the_manager(kill: bool) -> None:
    hooks = ('create', 'check_aliveness', 'on_acquire', 'on_release', 'dispose')
    run(*(f'given_up_inside({hook!r}, kill={kill})' for hook in hooks))


@pytest.mark.stress
def test_greenlets_are_given_up_anywhere() -> None:
    run('storm(hooks=False, seed=1)', 'storm(hooks=True, seed=2)')


def test_a_pool_is_closed() -> None:
    run('close_refuses_those_who_wait()', 'close_does_not_wait_for_ever()')


@pytest.mark.parametrize('order', ['gevent first', 'gcpool first'])
def test_the_collector_is_a_greenlet(order: str) -> None:
    run('collector()', 'close_beside_a_block()', 'collector_of_a_forgotten_pool()', 'end_without_close()', order=order)


def test_threads_of_the_system_use_the_pool_as_well() -> None:
    run('real_threads()')


@pytest.mark.parametrize('order', ['gevent first', 'gcpool first'])
def test_a_wait_is_cut_off(order: str) -> None:
    run('cut_off()', order=order)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_a_forked_child_starts_empty() -> None:
    run('fork()')


def test_a_pool_that_is_older_than_the_patches() -> None:
    run('pool_older_than_the_patches(collects=False)', order='patch later')
    run('pool_older_than_the_patches(collects=True)', order='patch later')
