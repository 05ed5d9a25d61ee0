"""What ``top`` and ``holders`` show of snapshots, on terminals wide and narrow."""

import io
from typing import Any

import pytest
from rich.console import Console

from gcpool._monitor.display import holders, overview
from gcpool._monitor.rates import Change
from gcpool._monitor.texts import duration, printable, rate
from tests.monitor.looks import pool, snapshot


def shown(renderable: Any, width: int = 130) -> str:
    output = io.StringIO()
    Console(file=output, width=width, highlight=False).print(renderable)
    return output.getvalue()


def cells(text: str, beginning: str) -> list[str]:
    """The cells of the row that begins with a text."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(beginning)]
    return [cell.strip() for cell in line.split('  ') if cell.strip()]


class TestOverview:
    def test_of_one_snapshot_there_are_no_rates(self) -> None:
        text = shown(overview(snapshot(pool())))
        assert 'shop.py process 1234, gcpool 1.2.3, Python 3.14.0' in text
        row = cells(text, 'orders')
        assert row[0] == 'orders'
        assert row[2:6] == ['ok', '2/8', '1', '0']
        assert row[6:] == ['-'] * 6

    def test_rates_are_those_between_two(self) -> None:
        before = snapshot(pool(), monotonic=100.0)
        now = snapshot(pool(stats={'acquires': 5100, 'created': 4, 'timeouts': 3, 'create_errors': 1}), monotonic=102.0)
        row = cells(shown(overview(now, before)), 'orders')
        assert row[6:8] == ['2,500', '2.0']

    def test_percentiles_are_those_of_the_time_between(self) -> None:
        slow = {'bounds': [0.001, 0.002, 0.004], 'counts': [0, 0, 50, 0], 'sum': 0.15}
        then_fast = {'bounds': [0.001, 0.002, 0.004], 'counts': [10, 0, 50, 0], 'sum': 0.155}
        before, now = (pool(histograms={'wait': found, 'use': found}) for found in (slow, then_fast))
        assert Change(now, before, 1.0).percentile('wait', 99) == pytest.approx(0.001, rel=0.02)
        assert Change(now).percentile('wait', 99) == pytest.approx(0.004, rel=0.02)
        assert Change(before, now, 1.0).percentile('wait', 50) == pytest.approx(0.003, rel=0.02)

    def test_counters_that_began_anew_make_no_negative_rates(self) -> None:
        change = Change(pool(stats={'acquires': 7}), pool(stats={'acquires': 100}), 1.0)
        assert change.count('acquires') == 7
        assert change.rate('acquires') == 7.0

    def test_a_pool_that_is_new_has_no_rates(self) -> None:
        text = shown(overview(snapshot(pool(), pool('new'), monotonic=101.0), snapshot(pool())))
        assert cells(text, 'new')[6:] == ['-'] * 6

    def test_a_terminal_of_80_columns_has_what_matters_most(self) -> None:
        text = shown(overview(snapshot(pool(stats={'waiting': 12, 'total_max_size': 128})), width=80), 80)
        assert max(map(len, text.splitlines())) <= 80
        assert '…' not in text
        assert '2/128' in text
        assert cells(text, 'orders')[4] == '12'
        assert 'busiest endpoints' in text

    def test_why_a_pool_is_not_well(self) -> None:
        text = shown(overview(snapshot(pool(health={'status': 'exhausted', 'reason': 'max_size=4 reached'}))))
        assert 'orders is exhausted: max_size=4 reached' in text

    def test_several_pools_of_one_name(self) -> None:
        assert 'orders (3 pools)' in shown(overview(snapshot(pool(pools=3))))

    def test_no_pool(self) -> None:
        assert 'No pool is open.' in shown(overview(snapshot()))

    def test_bars(self) -> None:
        counts = {'in_use': 4, 'idle': 2, 'creating': 0, 'checking': 0, 'closing': 1, 'total_max_size': 8}
        text = shown(overview(snapshot(pool(stats=counts)), plain_signs=True))
        assert '########--====..' in text
        # What there is little of has a sign, and no bar is longer than it may be.
        counts = {'in_use': 7999, 'idle': 1, 'creating': 1, 'checking': 1, 'closing': 1, 'total_max_size': 8000}
        text = shown(overview(snapshot(pool(stats=counts)), plain_signs=True))
        assert '#' * 16 in text
        assert '#' * 17 not in text

    def test_only_the_busiest_endpoints(self) -> None:
        states = dict.fromkeys(('idle', 'creating', 'checking', 'closing', 'waiting'), 0)
        rows = [{'endpoint': f'db{number}', 'in_use': number, **states} for number in range(30)]
        text = shown(overview(snapshot(pool(endpoints=rows, stats={'endpoints': 30}))))
        assert 'db29' in text
        assert 'db20' in text
        assert 'db19' not in text
        assert 'of 30 endpoints' in text

    def test_the_longest_holders_with_their_lines(self) -> None:
        frames = [['/srv/shop/cart.py', 17, 'pay'], ['/srv/shop/web.py', 3, 'serve']]
        held = [
            {'endpoint': 'db', 'seconds': 2.0, 'holder': 'thread-2', 'frames': []},
            {'endpoint': 'db', 'seconds': 75.5, 'holder': 'thread-1', 'frames': frames},
        ]
        text = shown(overview(snapshot(pool(holders=held))))
        assert text.index('thread-1') < text.index('thread-2')
        assert 'cart.py:17 pay' in text
        assert '75.5 s' in text


class TestHolders:
    def test_frame_by_frame(self) -> None:
        frames = [['/srv/shop/cart.py', 17, 'pay'], ['/srv/shop/web.py', 3, 'serve']]
        held = [{'endpoint': 'db', 'seconds': 75.5, 'holder': 'thread-1', 'frames': frames}]
        lines = shown(holders(snapshot(pool(holders=held)))).splitlines()
        assert lines[1] == "75.5 s  thread-1 has a connection of pool 'orders' to db"
        assert lines[2:4] == ['    /srv/shop/cart.py:17 in pay', '    /srv/shop/web.py:3 in serve']

    def test_nobody(self) -> None:
        text = shown(holders(snapshot(pool(stats={'in_use': 0}))))
        assert 'No connection is in use.' in text

    def test_a_pool_that_does_not_record_them(self) -> None:
        held = [{'endpoint': 'db', 'seconds': 3.0, 'holder': None, 'frames': []}]
        text = shown(holders(snapshot(pool(holders=held))))
        assert "3.00 s  An unknown holder has a connection of pool 'orders' to db" in text
        assert 'A pool with record_holders=True shows who acquired them, and where.' in text
        assert 'These are the first 1 of 2.' in text

    def test_a_line_that_is_not_known(self) -> None:
        held = [{'endpoint': 'db', 'seconds': 3.0, 'holder': 'me', 'frames': [['/srv/x.py', None, 'f']]}]
        assert '    /srv/x.py in f' in shown(holders(snapshot(pool(holders=held))))


HOSTILE = 'a\x1b[31m\x1b]0;title\x07\r\nb[bold]'


def test_no_name_commands_the_terminal() -> None:
    """Names come from the other process, and thread names from whoever calls it."""
    held = [{'endpoint': HOSTILE, 'seconds': 1.0, 'holder': HOSTILE, 'frames': [[HOSTILE, 1, HOSTILE]]}]
    rows = [{**pool()['endpoints'][0], 'endpoint': HOSTILE}]
    hostile = snapshot(pool(HOSTILE, holders=held, endpoints=rows, health={'status': HOSTILE, 'reason': HOSTILE}))
    hostile.update(program=HOSTILE, python=HOSTILE, gcpool=HOSTILE)
    for view in (overview(hostile), holders(hostile)):
        text = shown(view, 1000)
        assert not {'\x1b', '\x07', '\r'} & {*text}
        assert '[bold]' in text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [
        (None, '-'),
        (float('nan'), '-'),
        (0.0, '0 s'),
        (3e-9, '3 ns'),
        (4.5e-5, '45.0 us'),
        (0.0123, '12.3 ms'),
        (1.0, '1.00 s'),
        (119.6, '120 s'),
        (125.2, '2 min 05 s'),
        (7384.0, '2 h 03 min'),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(('value', 'text'), [(None, '-'), (0.0, '0'), (0.5, '0.5'), (9.96, '10'), (12345.6, '12,346')])
def test_rates(value: float | None, text: str) -> None:
    assert rate(value) == text


def test_printable() -> None:
    assert printable('Grüße 🙂') == 'Grüße 🙂'
    assert printable('a\tb\x7f') == 'a\\x09b\\x7f'
