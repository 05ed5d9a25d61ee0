"""A main thread that signals interrupt while another thread of ``gcpool.contrib`` works for it: that thread goes on.

Each program runs in a process of its own: see ``contrib_signal_programs.py``.
"""

import sys

import pytest

from tests.programs.runner import run_program

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals interrupt nothing there')


@pytest.mark.parametrize('running', [False, True])
def test_time_limits_are_kept_after_one_that_was_interrupted(running: bool) -> None:
    run_program('contrib_signal_programs', 'watching', running)


def test_a_time_limit_that_was_interrupted_as_it_expired_can_be_ended_by_others() -> None:
    run_program('contrib_signal_programs', 'ending_late')


def test_an_interrupted_attempt_to_connect_ends() -> None:
    run_program('contrib_signal_programs', 'connecting')


def test_whoever_is_interrupted_leaves_the_wait_for_an_abandoned_attempt_to_the_next() -> None:
    run_program('contrib_signal_programs', 'taking_a_place')


def test_an_interrupted_resolution_in_an_event_loop_ends() -> None:
    run_program('contrib_signal_programs', 'resolving')


@pytest.mark.parametrize('driver', ['psycopg', 'psycopg2'])
def test_an_interrupted_request_to_end_a_statement_ends(driver: str) -> None:
    pytest.importorskip(driver)
    run_program('contrib_signal_programs', f'ending_a_statement_of_{driver}')


def test_an_interrupted_end_of_a_mysql_session_leaves_the_turn_to_others() -> None:
    pytest.importorskip('pymysql')
    run_program('contrib_signal_programs', 'ending_a_session_of_pymysql')


def test_an_interrupted_opening_of_a_database_lets_other_threads_start() -> None:
    pytest.importorskip('aiosqlite')
    run_program('contrib_signal_programs', 'opening_a_database')
