"""A process that forks while a pool is in use: the child starts with an empty pool, and leaves the parent's connections
alone. See ``fork_programs.py``; each program runs in a process of its own.
"""

import os
import platform
import sys

import pytest

from tests.programs.runner import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')


@pytest.mark.parametrize('hooks', [False, True])
@pytest.mark.parametrize('collector', [False, True])
def test_a_child_starts_empty_beside_threads_that_are_in_the_pool(collector: bool, hooks: bool) -> None:
    run_program('fork_programs', 'child_starts_empty', collector, hooks)


@pytest.mark.parametrize('exit_normally', [False, True])
def test_a_child_leaves_a_block_of_its_parent_s_without_giving_anything_back(exit_normally: bool) -> None:
    run_program('fork_programs', 'child_leaves_the_parent_s_block', exit_normally)


def test_a_child_exits_without_sending_anything_beside_threads_that_are_in_the_pool() -> None:
    run_program('fork_programs', 'child_exits_beside_threads')


IN_ONE_THREAD: list[tuple[str, list[object]]] = [
    ('child_leaves_the_parent_s_block', [False]),
    ('child_leaves_the_parent_s_block', [True]),
    ('child_takes_out_what_is_its_parent_s', []),
    ('child_forks', []),
    ('fork_in_a_method', ['create']),
    ('fork_in_a_method', ['check_aliveness']),
    ('fork_in_a_method', ['on_acquire']),
    ('fork_in_a_method', ['on_release']),
    ('fork_in_a_method', ['dispose']),
    ('fork_in_an_endpoint', ['__hash__']),
    ('fork_in_an_endpoint', ['__eq__']),
    ('fork_in_an_endpoint', ['normalize']),
    ('used_by_a_hook_that_runs_before', []),
    ('closed_pool', []),
    ('paused_pool', []),
    ('pool_that_is_not_open', []),
    ('asyncio_pool', [False]),
    ('asyncio_pool', [True]),
    ('warmed_up', ['acquire']),
    ('asyncio_pool_warmed_up', ['acquire']),
]
BESIDE_THREADS: list[tuple[str, list[object]]] = [
    ('fork_in_a_thread_beside_one_that_waits', []),
    ('forgotten_in_the_child', []),
    ('closed_in_the_child', []),
    ('collector_in_the_child', []),
    ('warmed_up_beside_a_worker', [False]),
    ('warmed_up_beside_a_worker', [True]),
    ('tcp_connections', []),
]


# How a process may be copied, and whether the pool's function is registered with Python's own fork.
WAYS = ['fork_in_c', 'fork_in_c_without_the_gil', 'fork_in_c_and_tell', 'os.fork unregistered']
if sys.platform == 'linux' and platform.machine() in {'x86_64', 'aarch64'}:
    # The number of the system call is that of these systems.
    WAYS.append('clone_and_tell')

# Where Python is not told, no child survives a thread that holds the GIL at that moment: nobody gives it back there.
# From 3.14 on Python notes the threads that wait for its locks, on their own stacks. A child that Python is not told of
# has the notes, and its new threads get the stacks: any lock may crash then.
WAYS_BESIDE_THREADS = [
    way for way in WAYS if way != 'fork_in_c_without_the_gil' and (way != 'fork_in_c' or sys.version_info < (3, 14))
]


@pytest.mark.parametrize(
    ('way', 'programs'),
    [
        *(pytest.param(way, IN_ONE_THREAD, id=way) for way in WAYS),
        *(pytest.param(way, BESIDE_THREADS, id=f'{way} beside threads') for way in WAYS_BESIDE_THREADS),
    ],
)
def test_a_child_has_a_pool_of_its_own_however_the_process_was_copied(
    way: str, programs: list[tuple[str, list[object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == 'os.fork unregistered':
        monkeypatch.setenv('GCPOOL_TEST_NO_FORK_HOOK', '1')
        way = 'fork_by_python'
    run_program('fork_programs', 'in_this_way', way, *programs)


@pytest.mark.parametrize('method', ['__hash__', '__eq__', 'normalize'])
def test_a_child_that_was_forked_inside_an_endpoint_has_nothing_of_the_parent_s(method: str) -> None:
    run_program('fork_programs', 'fork_in_an_endpoint', method)


def test_a_child_of_a_child_leaves_the_connections_of_both_alone() -> None:
    run_program('fork_programs', 'child_forks')


def test_a_thread_other_than_the_main_one_forks() -> None:
    run_program('fork_programs', 'fork_in_another_thread')


@pytest.mark.parametrize('method', ['create', 'check_aliveness', 'on_acquire', 'on_release', 'dispose'])
def test_a_child_that_was_forked_inside_a_method_of_the_manager_has_a_pool_that_works(method: str) -> None:
    run_program('fork_programs', 'fork_in_a_method', method)


def test_a_closed_pool_is_closed_in_the_child_too() -> None:
    run_program('fork_programs', 'closed_pool')


def test_the_collector_works_in_a_child_from_when_it_is_needed() -> None:
    run_program('fork_programs', 'collector_in_the_child')


def test_idle_threads_of_the_pool_end_before_a_fork_and_the_collector_goes_on_after_it() -> None:
    run_program('fork_programs', 'idle_threads_end_before_a_fork')


def test_a_fork_does_not_wait_for_long_for_an_idle_thread_that_does_not_end() -> None:
    run_program('fork_programs', 'fork_beside_an_idle_thread_that_does_not_end')


def test_a_pool_that_is_let_go_in_a_child_sends_nothing() -> None:
    run_program('fork_programs', 'forgotten_in_the_child')


@pytest.mark.parametrize('first', ['acquire', 'warm_up', 'wait'])
def test_a_child_warms_its_endpoints_up_again(first: str) -> None:
    run_program('fork_programs', 'warmed_up', first)


@pytest.mark.parametrize('at_work', [False, True])
def test_a_child_warms_its_endpoints_up_beside_a_thread_that_creates(at_work: bool) -> None:
    run_program('fork_programs', 'warmed_up_beside_a_worker', at_work)


@pytest.mark.parametrize('first', ['acquire', 'wait'])
def test_a_child_warms_its_endpoints_up_again_in_its_own_loop(first: str) -> None:
    run_program('fork_programs', 'asyncio_pool_warmed_up', first)


@pytest.mark.parametrize('collector', [False, True])
def test_an_asyncio_pool_works_in_a_child_in_a_loop_of_its_own(collector: bool) -> None:
    run_program('fork_programs', 'asyncio_pool', collector)


def test_a_parent_s_tcp_connection_works_when_the_child_is_gone() -> None:
    run_program('fork_programs', 'tcp_connections')
