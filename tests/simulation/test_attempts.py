"""What the simulated servers take for the attempts of an outage."""

from tests.simulation.attempts import Attempts


def test_one_attempt_at_a_time_may_begin() -> None:
    attempts = Attempts(0)
    assert attempts.begin('first')
    attempts.end('first')
    assert attempts.begin('second')
    assert not attempts.begin('third')


def test_what_had_a_slot_before_the_outage_may_begin_besides() -> None:
    attempts = Attempts(1)
    assert attempts.begin('first')
    assert attempts.begin('second')
    assert not attempts.begin('third')


def test_what_had_a_slot_may_begin_before_the_first_attempt_and_last_for_longer() -> None:
    attempts = Attempts(1)
    assert attempts.begin('had a slot')
    for number in range(3):
        assert attempts.begin(number)
        attempts.end(number)
    assert attempts.begin('last')
    assert not attempts.begin('one too many')


def test_if_either_of_two_may_be_the_attempt_the_next_one_begins_when_either_has_ended() -> None:
    attempts = Attempts(1)
    assert attempts.begin('first')
    assert attempts.begin('second')
    attempts.end('first')
    assert attempts.begin('third')
    # Now it is known that the first one was the attempt.
    attempts.end('second')
    assert not attempts.begin('fourth')


def test_the_end_of_a_connect_of_before_changes_nothing() -> None:
    attempts = Attempts(0)
    assert attempts.begin('first')
    attempts.end('of before')
    assert not attempts.begin('second')
