"""The histograms of waits, connects and uses, and the percentiles that come from them."""

import copy
import math
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcpool._core import BUCKET_BOUNDS, HISTOGRAMS
from gcpool._statistics import Histogram, PoolStats
from tests.engine.support import Pool


def used_for(*seconds: float) -> Pool:
    """A pool whose one connection was used for these times, one after the other."""
    pool = Pool(max_lifetime=math.inf)
    for each in seconds:
        pool.now = 0.0
        acquire = pool.acquire('a')
        pool.now = each
        pool.release(acquire)
    return pool


def filled(histogram: Histogram) -> dict[float, int]:
    """The buckets that are not empty, by their bounds."""
    return {bound: count for bound, count in zip(histogram.bounds, histogram.counts, strict=True) if count}


def test_there_is_one_of_each_time_and_their_bounds_double() -> None:
    histograms = Pool().stats.histograms
    assert tuple(histograms) == HISTOGRAMS == ('wait', 'create', 'use')
    for histogram in histograms.values():
        assert histogram.bounds == BUCKET_BOUNDS
        assert (histogram.count, histogram.sum) == (0, 0.0)
    assert BUCKET_BOUNDS[0] < 1e-6
    assert BUCKET_BOUNDS[-2:] == (4096.0, math.inf)
    assert [2 * bound for bound in BUCKET_BOUNDS[:-2]] == [*BUCKET_BOUNDS[1:-1]]


@given(st.floats(min_value=0.0, max_value=1e9, exclude_min=True))
def test_a_time_is_in_the_bucket_of_the_least_bound_that_it_does_not_exceed(seconds: float) -> None:
    bound = next(bound for bound in BUCKET_BOUNDS if seconds <= bound)
    assert filled(used_for(seconds).stats.histograms['use']) == {bound: 1}


@pytest.mark.parametrize('bound', BUCKET_BOUNDS[:-1])
def test_a_bound_belongs_to_its_bucket(bound: float) -> None:
    above = math.nextafter(bound, math.inf) if hasattr(math, 'nextafter') else bound * (1 + 2**-52)
    pool = used_for(bound, above)
    following = BUCKET_BOUNDS[BUCKET_BOUNDS.index(bound) + 1]
    assert filled(pool.stats.histograms['use']) == {bound: 1, following: 1}


def test_the_times_are_those_of_the_sums() -> None:
    pool = Pool(max_size=1)
    first = pool.ask('a')
    pool.core.begin_create(first.entry, pool.now)
    pool.now = 2.0
    pool.connect(first)  # created in 2 s
    second, third = pool.ask('a'), pool.ask('a')
    pool.now = 5.0
    pool.release(first)  # used for 3 s
    pool.core.end_wait(second.waiter, pool.now)  # waited for 3 s
    pool.now = 12.0
    assert pool.core.give_up(third.waiter)  # waited for 10 s
    pool.cancel(third)
    pool.release(second)  # used for 7 s
    stats = pool.stats
    assert {name: filled(histogram) for name, histogram in stats.histograms.items()} == {
        'wait': {4.0: 1, 16.0: 1},
        'create': {2.0: 1},
        'use': {4.0: 1, 8.0: 1},
    }
    assert {name: histogram.sum for name, histogram in stats.histograms.items()} == {
        'wait': 13.0,
        'create': 2.0,
        'use': 10.0,
    }


def test_a_failed_connect_is_timed_too() -> None:
    pool = Pool()
    failing = pool.ask('a')
    pool.core.begin_create(failing.entry, pool.now)
    pool.now = 1.0
    pool.core.create_failed(failing.waiter, pool.now)
    assert filled(pool.stats.histograms['create']) == {1.0: 1}


def test_uses_within_a_tick_of_the_clock_are_in_the_lowest_bucket() -> None:
    pool = Pool(min_idle=0)
    pool.fill('a', 3)
    pool.fill('b', 1)
    assert filled(pool.stats.histograms['use']) == {BUCKET_BOUNDS[0]: 4}
    held = pool.acquire('a')
    assert pool.stats.histograms['use'].count == 4, 'it has not ended'
    pool.now = 1.0
    pool.release(held)
    pool.now = 100.0
    pool.expire()  # the endpoints are forgotten
    assert pool.stats['endpoints'] == 0
    assert filled(pool.stats.histograms['use']) == {BUCKET_BOUNDS[0]: 4, 1.0: 1}


def test_every_use_counts_once_however_it_ends() -> None:
    pool = Pool(max_size=9)
    returned, detached, broken, discarded, dead, checked, cut_off = pool.acquire_all('a', 7)
    pool.now = 1.0
    pool.release(returned)
    pool.core.detach(detached.entry, pool.now)
    pool.core.retire(broken.entry, pool.now)
    pool.core.discard(discarded.entry, pool.now)
    assert filled(pool.stats.histograms['use']) == {1.0: 4}
    # Those were never used.
    pool.core.reject_dead(dead.waiter)
    pool.cancel(dead)
    assert pool.core.leave_check_to_pool(checked.waiter, pool.now)
    checking = pool.core.take_check()
    assert checking is not None
    pool.core.end_check_by_pool(checking, True, pool.now)
    assert filled(pool.stats.histograms['use']) == {1.0: 4}
    # Nor has this use an end, as its time is in no sum.
    pool.core.close()
    pool.core.doom_acquired()
    pool.release(cut_off)
    assert filled(pool.stats.histograms['use']) == {1.0: 4}
    pool.dispose()


def test_a_pop_begins_the_histograms_anew() -> None:
    pool = used_for(1.0, 3.0, 0.0)
    popped = pool.core.stats(True)
    assert filled(popped.histograms['use']) == {1.0: 1, 4.0: 1, BUCKET_BOUNDS[0]: 1}
    pool.now = 0.0
    held = pool.acquire('a')
    pool.now = 8.0
    pool.release(held)
    assert filled(pool.stats.histograms['use']) == {8.0: 1}
    assert pool.stats.histograms['use'].sum == 8.0
    assert pool.core.stats(True).histograms['use'].count == 1
    assert pool.stats.histograms['use'].count == 0


def test_how_long_the_connection_is_held_that_was_taken_first() -> None:
    pool = Pool()
    assert pool.stats['longest_held'] == 0
    first = pool.acquire('a')
    pool.now = 2.0
    second = pool.acquire('b')
    pool.now = 5.0
    assert pool.stats['longest_held'] == 5_000_000_000
    assert [pool.core.endpoint_stats(endpoint)['longest_held'] for endpoint in 'abc'] == [
        5_000_000_000,
        3_000_000_000,
        0,
    ]
    assert pool.core.begin_release(first.entry)  # its hook runs: it is still in use
    assert pool.stats['longest_held'] == 5_000_000_000
    pool.core.release(first.entry, pool.now)
    assert pool.stats['longest_held'] == 3_000_000_000
    pool.release(second)
    assert pool.stats['longest_held'] == 0
    assert pool.core.stats(True)['longest_held'] == 0


# -- percentiles ------------------------------------------------------------------------------------------------------


def histogram_of(*seconds: float) -> Histogram:
    return used_for(*seconds).stats.histograms['use']


@given(st.lists(st.floats(min_value=2.0**-20, max_value=4096.0), min_size=1, max_size=20), st.integers(0, 100))
def test_a_percentile_is_in_the_bucket_of_the_exact_one(times: list[float], q: int) -> None:
    rank = max(math.ceil(Fraction(q, 100) * len(times)), 1)
    exact = sorted(times)[rank - 1]
    found = histogram_of(*times).percentile(q)
    bound = next(bound for bound in BUCKET_BOUNDS if exact <= bound)
    assert (bound / 2 if bound > BUCKET_BOUNDS[0] else 0.0) <= found <= bound


def test_percentiles_grow_with_the_percentage() -> None:
    histogram = histogram_of(0.1, 0.2, 0.4, 3.0, 100.0, 5000.0)
    found = [histogram.percentile(q) for q in range(101)]
    assert found == sorted(found)
    assert found[0] > 0
    assert found[-1] == 4096.0, 'the last bucket has no bound'


def test_the_times_of_a_bucket_are_taken_to_be_spread_evenly() -> None:
    histogram = histogram_of(*[1.5] * 4)
    assert [histogram.percentile(q) for q in (0, 25, 50, 100)] == [1.0, 1.25, 1.5, 2.0]


def test_without_times_a_percentile_is_0() -> None:
    assert Pool().stats.histograms['wait'].percentile(99) == 0.0


@pytest.mark.parametrize('q', [-1, 100.1, math.nan])
def test_no_percentage(q: float) -> None:
    with pytest.raises(ValueError, match=f'q={q}: expected a percentage, 0 to 100'):
        histogram_of(1.0).percentile(q)


def test_percentiles_by_their_keys() -> None:
    stats = used_for(1.5, 1.5, 6.0, 0.0).stats
    use = stats.histograms['use']
    keys = {
        'use_p50': 50,
        'use_p90': 90,
        'use_p99': 99,
        'use_p999': 99.9,
        'use_p9995': 99.95,
        'use_p5': 5,
        'use_p00': 0,
    }
    assert {key: stats[key] for key in keys} == {key: use.percentile(q) for key, q in keys.items()}
    assert stats['use_p100'] == 8.0
    assert stats['wait_p99'] == stats['create_p50'] == 0.0


@pytest.mark.parametrize(
    'key',
    ['use', 'use_p', 'use_p-1', 'use_p1.5', 'use_pp9', 'use_p9_9', 'use_p٩', 'hold_p99', '_p99', 'use_ms', 3],
)
def test_no_such_key(key: str) -> None:
    with pytest.raises(KeyError) as caught:
        used_for(1.0).stats[key]
    assert caught.value.args == (key,)


def test_the_dict_itself_has_only_ints() -> None:
    stats = used_for(1.0).stats
    assert stats['use_p50'] > 0
    assert 'use_p50' not in stats
    assert stats.get('use_p50') is None
    assert {type(value) for value in dict(stats).values()} == {int}
    assert type(dict(stats)) is dict


def test_statistics_can_be_copied_and_pickled() -> None:
    stats = used_for(1.5, 6.0).stats
    twins = [stats.copy(), copy.copy(stats), copy.deepcopy(stats)]
    twins += [pickle.loads(pickle.dumps(stats, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for twin in twins:
        assert type(twin) is PoolStats
        assert twin == stats
        assert twin.histograms == stats.histograms
        assert twin['use_p99'] == stats['use_p99']
    assert repr(stats.histograms['use']) == '<Histogram of 2 times, 7.5 s>'
    assert stats.histograms['use'] != stats.histograms['wait']
    assert stats.histograms['use'] != 2


def test_an_endpoint_has_no_histograms() -> None:
    pool = used_for(1.0)
    stats = pool.core.endpoint_stats('a')
    assert stats.histograms == {}
    with pytest.raises(KeyError, match='use_p99'):
        stats['use_p99']
