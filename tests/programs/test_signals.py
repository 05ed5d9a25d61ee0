"""A main thread that signals interrupt wherever it is in the pool. See ``signal_programs.py`` for what is found there.

Each program runs in a process of its own, where it may do with signals and the main thread what it likes.
"""

import sys

import pytest

from tests.programs.runner import run_program
from tests.programs.signal_programs import SIGNALS
from tests.support import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals interrupt nothing there')

names = pytest.mark.parametrize('name', SIGNALS)


@names
@pytest.mark.parametrize('timeout', [None, PATIENCE])
def test_an_interrupted_wait_for_a_connection_leaves_the_queue(name: str, timeout: float | None) -> None:
    run_program('signal_programs', 'wait_for_a_connection', name, timeout)


@names
def test_an_interrupted_wait_for_a_slot_closes_nothing(name: str) -> None:
    run_program('signal_programs', 'wait_for_a_slot', name)


@names
def test_an_interrupted_wait_leaves_its_place_to_the_next(name: str) -> None:
    run_program('signal_programs', 'wait_behind_a_waiter', name)


@names
def test_an_interrupted_create_frees_its_slot(name: str) -> None:
    run_program('signal_programs', 'in_create', name)


@names
def test_the_slot_of_an_interrupted_create_goes_to_one_who_waits(name: str) -> None:
    run_program('signal_programs', 'in_create_before_another', name)


@names
@pytest.mark.parametrize('method', ['check_aliveness', 'on_acquire'])
def test_a_connection_goes_back_or_to_the_next_when_its_check_or_hook_is_interrupted(name: str, method: str) -> None:
    run_program('signal_programs', 'on_the_way_out', name, method)


@names
def test_a_new_connection_is_kept_when_its_hook_is_interrupted(name: str) -> None:
    run_program('signal_programs', 'on_acquire_of_a_new_connection', name)


@names
def test_a_connection_is_back_or_with_the_next_when_on_release_is_interrupted(name: str) -> None:
    run_program('signal_programs', 'on_the_way_back', name)


@names
@pytest.mark.parametrize('method', ['dispose', 'on_connection_dead', 'create'])
def test_a_dead_connection_is_gone_when_what_follows_is_interrupted(name: str, method: str) -> None:
    run_program('signal_programs', 'dead', name, method)


@names
def test_an_interrupted_dispose_does_not_keep_the_others_from_being_disposed_of(name: str) -> None:
    run_program('signal_programs', 'disposing_in_a_release', name)


@names
def test_an_eviction_that_is_interrupted_leaves_a_free_slot(name: str) -> None:
    run_program('signal_programs', 'evicting', name)


@names
def test_an_interrupted_close_has_closed_the_pool_and_can_be_called_again(name: str) -> None:
    run_program('signal_programs', 'closing', name)


def test_the_collector_is_told_though_its_waking_is_interrupted() -> None:
    run_program('signal_programs', 'waking_the_collector')


def test_an_acquire_interrupted_while_it_starts_a_thread_leaves_no_lock_taken() -> None:
    run_program('signal_programs', 'starting_a_thread')


def test_a_handler_that_acquires_while_its_thread_waits_is_served_what_comes_back() -> None:
    run_program('signal_programs', 'handler_acquires_what_comes_back')


@pytest.mark.parametrize('what', ['connection', 'slot'])
def test_a_handler_that_acquires_takes_over_what_its_thread_was_served_before(what: str) -> None:
    run_program('signal_programs', 'handler_acquires_what_its_thread_was_served', what)


def test_of_handlers_that_interrupt_each_other_the_last_one_is_served_first() -> None:
    run_program('signal_programs', 'handlers_acquire_one_in_the_other')


def test_a_handler_that_acquires_at_another_endpoint_is_served_what_is_idle_there() -> None:
    run_program('signal_programs', 'handler_acquires_at_another_endpoint')


def test_an_acquire_whose_connection_its_handler_took_over_ends_in_time() -> None:
    run_program('signal_programs', 'handler_takes_over_and_the_time_is_over')


@pytest.mark.parametrize('rival_count', [0, 3])
@pytest.mark.parametrize('hooks', [False, True])
def test_contexts_interrupted_anywhere_lose_nothing(hooks: bool, rival_count: int) -> None:
    run_program('signal_programs', 'storm_over_contexts', hooks, rival_count)


@pytest.mark.parametrize('rival_count', [0, 3])
@pytest.mark.parametrize('hooks', [False, True])
def test_acquire_and_release_interrupted_anywhere_inside_lose_nothing(hooks: bool, rival_count: int) -> None:
    run_program('signal_programs', 'storm_over_acquires', hooks, rival_count)


def test_what_an_interrupted_caller_loses_is_closed_and_counted_with_the_pool() -> None:
    run_program('signal_programs', 'storm_over_careless_callers')


@pytest.mark.parametrize('hooks', [False, True])
def test_a_close_interrupted_anywhere_can_be_called_again(hooks: bool) -> None:
    run_program('signal_programs', 'storm_over_closing', hooks)


def test_a_collector_survives_that_releases_are_interrupted_anywhere() -> None:
    run_program('signal_programs', 'storm_over_a_collector')
