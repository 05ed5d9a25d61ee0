"""``python -m gcpool top`` in a terminal, or for a program that reads its output. This and commands need rich."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .figures import STATES
from .rates import Change
from .texts import duration, place, printable, rate, steps

__all__ = ['BAR_WIDTH', 'holders', 'make_console', 'overview']

PIPED_WIDTH = 130  # columns without a terminal
WIDE = 120  # all figures are shown from this many columns on
BAR_WIDTH = 16
NAME_WIDTH = 12  # minimum number of columns for a name
SHOWN_ENDPOINTS = 10
SHOWN_HOLDERS = 8

# For each state its sign in a bar, on a terminal that can show it and elsewhere, and its colour.
_SIGNS = {
    'in_use': ('█', '#', 'red'),
    'idle': ('█', '=', 'green'),
    'creating': ('▒', '+', 'yellow'),
    'checking': ('▒', '?', 'cyan'),
    'closing': ('▒', '-', 'magenta'),
}
_FREE = ('·', '.', 'dim')
_COLOURS = {'ok': 'green', 'degraded': 'yellow', 'exhausted': 'bold red'}


def make_console() -> Console:
    """The standard output: as wide as the terminal, or wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def overview(
    now: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    *,
    width: int = PIPED_WIDTH,
    plain_signs: bool = False,
) -> RenderableType:
    """A process on one screen.

    :param now: a snapshot
    :param before: an earlier one of the same process, for the rates; without it there are none
    :param width: the number of columns: a narrow terminal gets fewer figures
    :param plain_signs: whether bars are drawn with ASCII
    """
    seconds = now['monotonic'] - before['monotonic'] if before else 0.0
    earlier = {pool['name']: pool for pool in before['pools']} if before else {}
    changes = [Change(pool, earlier.get(pool['name']), seconds) for pool in now['pools']]
    if not changes:
        return Group(_headline(now), Text('\nNo pool is open.'))
    parts: list[RenderableType] = [
        _headline(now),
        _pools(changes, wide=width >= WIDE, plain_signs=plain_signs),
    ]
    parts += [_reason(change.now) for change in changes if change.now['health']['reason']]
    parts += [_endpoints(changes, wide=width >= WIDE, plain_signs=plain_signs), *_longest(now)]
    return Group(*parts)


def _reason(pool: Mapping[str, Any]) -> Text:
    health = pool['health']
    return Text.assemble(
        (f'{printable(pool["name"])} is {printable(health["status"])}: ', _COLOURS.get(health['status'], 'bold')),
        printable(health['reason']),
    )


def _headline(now: Mapping[str, Any]) -> Text:
    clock = time.strftime('%H:%M:%S', time.localtime(now['time']))
    program = printable(now['program'])
    return Text.assemble(
        (f'{program} ' if program else '', 'bold'),
        f'process {now["pid"]}, gcpool {printable(now["gcpool"])}, Python {printable(now["python"])}, {clock}',
    )


def _pools(changes: Sequence[Change], *, wide: bool, plain_signs: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column('pool', overflow='fold', min_width=NAME_WIDTH)
    table.add_column('connections', no_wrap=True)
    columns = [column for column in _COLUMNS if wide or column not in _WIDE_COLUMNS]
    for title in columns:
        table.add_column(title, justify='right', no_wrap=True)
    for change in changes:
        pool = change.now
        several = f' ({pool["pools"]} pools)' if pool['pools'] > 1 else ''
        table.add_row(
            printable(pool['name']) + several,
            _bar(pool['stats'], pool['stats']['total_max_size'], plain_signs=plain_signs),
            *(_COLUMNS[title](change) for title in columns),
        )
    return table


def _in_use(change: Change) -> str:
    return f'{change.gauge("in_use"):,}/{change.gauge("total_max_size"):,}'


def _errors(change: Change) -> str:
    found = [change.rate(name) for name in ('timeouts', 'create_errors', 'too_many')]
    known = [number for number in found if number is not None]
    return rate(sum(known) if known else None)


def _health(change: Change) -> Text:
    status = str(change.now['health']['status'])
    return Text(printable(status), _COLOURS.get(status, ''))


_COLUMNS: dict[str, Callable[[Change], str | Text]] = {
    'health': _health,
    'in use': _in_use,
    'idle': lambda change: f'{change.gauge("idle"):,}',
    'waiting': lambda change: f'{change.gauge("waiting"):,}',
    'acquires/s': lambda change: rate(change.rate('acquires')),
    'errors/s': _errors,
    'wait p50': lambda change: duration(change.percentile('wait', 50)),
    'wait p99': lambda change: duration(change.percentile('wait', 99)),
    'use p50': lambda change: duration(change.percentile('use', 50)),
    'use p99': lambda change: duration(change.percentile('use', 99)),
}
# The columns for which a terminal of 80 columns has no room.
_WIDE_COLUMNS = frozenset({'health', 'errors/s', 'wait p50', 'use p50', 'use p99'})


def _bar(counts: Mapping[str, int], of: int, *, plain_signs: bool) -> Text:
    """The states of connections as a bar. Each state with connections has a sign, however few they are."""
    bar = Text()
    left = BAR_WIDTH
    for state in ('in_use', 'creating', 'checking', 'closing', 'idle'):
        count = counts[state]
        if count and left:
            length = min(max(round(count / max(of, 1) * BAR_WIDTH), 1), left)
            left -= length
            sign, plain, colour = _SIGNS[state]
            bar.append((plain if plain_signs else sign) * length, colour)
    sign, plain, colour = _FREE
    return bar.append((plain if plain_signs else sign) * left, colour)


def _endpoints(changes: Sequence[Change], *, wide: bool, plain_signs: bool) -> RenderableType:
    rows = [(change.now, row) for change in changes for row in change.now.get('endpoints', ())]
    rows.sort(key=lambda pair: -pair[1]['in_use'] - pair[1]['waiting'])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = ('in_use', 'idle', 'waiting') if not wide else (*STATES, 'waiting')
    table.add_column('busiest endpoints', overflow='fold', min_width=NAME_WIDTH)
    table.add_column('pool', overflow='fold')
    table.add_column('connections', no_wrap=True)
    for title in columns:
        table.add_column(title.replace('_', ' '), justify='right', no_wrap=True)
    for pool, row in rows[:SHOWN_ENDPOINTS]:
        # A row may be the sum of pools of one name, each of which may have max_size connections to an endpoint.
        of = pool['stats']['max_size'] if row['endpoint'] != 'other' else pool['stats']['total_max_size']
        table.add_row(
            printable(row['endpoint']),
            printable(pool['name']),
            _bar(row, of, plain_signs=plain_signs),
            *(f'{row[name]:,}' for name in columns),
        )
    if not rows:
        return Text('')
    known = sum(change.gauge('endpoints') for change in changes)
    if known > table.row_count:
        table.caption = f'of {known:,} endpoints'
    return table


def _sorted_holders(now: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    found = [(printable(pool['name']), holder) for pool in now['pools'] for holder in pool.get('holders', ())]
    return sorted(found, key=lambda pair: -pair[1]['seconds'])


def _longest(now: Mapping[str, Any]) -> list[RenderableType]:
    found = _sorted_holders(now)
    if not found:
        return []
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column('longest in use', justify='right', no_wrap=True)
    for title in ('holder', 'acquired at', 'endpoint', 'pool'):
        table.add_column(title, overflow='fold')
    for name, holder in found[:SHOWN_HOLDERS]:
        table.add_row(
            duration(holder['seconds']),
            printable(holder['holder'] or '-'),
            place(holder['frames']),
            printable(holder['endpoint']),
            name,
        )
    return [table]


def holders(now: Mapping[str, Any]) -> RenderableType:
    """Who holds connections, for how long, and where they were acquired, frame by frame."""
    parts: list[RenderableType] = []
    found = _sorted_holders(now)
    for name, holder in found:
        who = printable(holder['holder'] or 'An unknown holder')
        what = f'has a connection of pool {name!r} to {printable(holder["endpoint"])}'
        parts.append(Text.assemble((duration(holder['seconds']), 'bold'), f'  {who} {what}'))
        parts += [Text(f'    {step}') for step in steps(holder['frames'])]
    if not found:
        parts.append(Text('No connection is in use.'))
    elif not any(holder['frames'] for _, holder in found):
        parts.append(Text('A pool with record_holders=True shows who acquired them, and where.'))
    in_use = sum(pool['stats']['in_use'] for pool in now['pools'])
    if in_use > len(found):
        parts.append(Text(f'These are the first {len(found)} of {in_use:,}.'))
    return Group(_headline(now), *parts)
