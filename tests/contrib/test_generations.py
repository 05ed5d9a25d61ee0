"""Which connections one error makes useless: older ones, and no others."""

import threading
from collections.abc import Callable
from typing import Any

from gcpool.contrib._generations import RETIRE_INTERVAL, Generations


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_those_from_before_are_retired_and_no_others() -> None:
    generations = Generations()
    before, elsewhere = generations.latest('db'), generations.latest('other')
    assert not vars(generations)['any_retired']
    assert not generations.is_retired('db', before)
    generations.retire('db', before)
    assert vars(generations)['any_retired']
    assert generations.is_retired('db', before)
    assert not generations.is_retired('db', generations.latest('db'))
    assert not generations.is_retired('other', elsewhere)


def test_a_connection_counts_from_the_time_its_create_begins() -> None:
    generations = Generations()
    # Begun before the error; it may have reached the server before it, although it exists only afterwards.
    begun = generations.latest('db')
    generations.retire('db', generations.latest('db'))
    assert generations.is_retired('db', begun)


def test_those_that_were_retired_retire_nobody() -> None:
    clock = Clock()
    generations = Generations(clock=clock)
    old = generations.latest('db')
    generations.retire('db', old)
    new = generations.latest('db')
    clock.now += 10 * RETIRE_INTERVAL
    # Ten connections to the former primary are still in use, and each fails at its own time.
    for _ in range(10):
        generations.retire('db', old)
    assert not generations.is_retired('db', new)


def test_no_storm_where_a_server_is_read_only_for_good() -> None:
    clock = Clock()
    generations = Generations(interval=5.0, clock=clock)
    retirements = 0
    for _ in range(100):
        latest = generations.latest('db')
        generations.retire('db', latest)
        retirements += generations.is_retired('db', latest)
        clock.now += 0.5
    assert retirements == 10


def test_without_an_interval_each_error_counts() -> None:
    generations = Generations(interval=0.0, clock=Clock())
    for _ in range(3):
        latest = generations.latest('db')
        generations.retire('db', latest)
        assert generations.is_retired('db', latest)


def test_connections_made_by_somebody_else() -> None:
    clock = Clock()
    generations = Generations(clock=clock)
    ours = generations.latest('db')
    # Their errors count; when they were created is unknown.
    generations.retire('db', None)
    assert generations.is_retired('db', ours)
    assert not generations.is_retired('db', None)
    again = generations.latest('db')
    generations.retire('db', None)
    assert not generations.is_retired('db', again)
    clock.now += RETIRE_INTERVAL
    generations.retire('db', None)
    assert generations.is_retired('db', again)


def test_nothing_is_kept_of_endpoints_without_an_error() -> None:
    generations = Generations()
    for endpoint in range(1000):
        assert not generations.is_retired(endpoint, generations.latest(endpoint))
    generations.retire('db', generations.latest('db'))
    kept: Any = vars(generations)
    assert [len(value) for value in kept.values() if isinstance(value, dict)] == [1]


def test_threads_with_the_same_news_retire_once() -> None:
    generations = Generations(interval=0.0)
    together = threading.Barrier(8, timeout=60.0)

    def in_threads(call: Callable[[], None]) -> None:
        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for _ in range(50):
        latest = generations.latest('db')

        def retire(latest: int = latest) -> None:
            together.wait()
            generations.retire('db', latest)

        in_threads(retire)
        assert generations.is_retired('db', latest)
        assert generations.latest('db') == latest + 1
