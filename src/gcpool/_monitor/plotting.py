"""Draws a recording. The one module that needs matplotlib."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from gcpool.exceptions import MonitorError

from .rates import Change
from .snapshot import VERSION
from .texts import printable

__all__ = ['plot', 'read']

# Maximum number of pools that are drawn: those with the most acquires.
MAX_POOLS = 8
# The states that are stacked in the chart of the connections, from below.
_STACKED = {'in_use': 'C3', 'idle': 'C2', 'creating': 'C1', 'checking': 'C9', 'closing': 'C4'}
# The percentiles of the waits, and how strongly each is drawn.
_PERCENTILES = {50: 0.4, 90: 0.7, 99: 1.0}

# Above the chart, where it hides nothing.
_LEGEND: dict[str, Any] = {'loc': 'lower right', 'bbox_to_anchor': (1.0, 1.0), 'fontsize': 'small', 'frameon': False}


def plot(path: str, output: str | None = None) -> str:
    """Draw a recording: for each pool connections by state, waiting acquires, and percentiles of the waits.

    :param path: the recording
    :param output: the picture, whose name determines its format; None for the name of the recording with ``.svg``
    :return: the name of the picture
    :raises MonitorError: when the file is not a recording, or the picture cannot be written
    """
    output = output or f'{os.path.splitext(path)[0]}.svg'
    snapshots = read(path)
    names = _names(snapshots)
    if not names:
        raise MonitorError(f'{path!r} has no pool: none was open while it was recorded')
    figure = Figure(figsize=(10, 1 + 4.5 * len(names)), layout='constrained')
    began = snapshots[0]['monotonic']
    for rows, name in zip(figure.subfigures(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        rows.suptitle(printable(name), x=0.02, ha='left')
        connections, waits = rows.subplots(2, 1, sharex=True)
        _draw(connections, waits, _changes(snapshots, name), began)
    try:
        # The same recording gives the same picture, and its text is text.
        with rc_context({'svg.hashsalt': 'gcpool', 'svg.fonttype': 'none'}):
            figure.savefig(output, metadata={'Date': None} if output.lower().endswith('.svg') else None)
    except (OSError, ValueError) as exc:
        raise MonitorError(f'the picture {output!r} cannot be written: {exc}') from exc
    return output


def read(path: str) -> list[dict[str, Any]]:
    """Read a recording: one snapshot per line. A truncated last line is left out.

    :raises MonitorError: when the file is not a recording
    """
    snapshots: list[dict[str, Any]] = []
    try:
        with open(path, encoding='utf-8') as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise MonitorError(f'the recording {path!r} cannot be read: {exc}') from exc
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
        except ValueError as exc:
            if number == len(lines) > 1:
                break
            raise MonitorError(f'line {number} of {path!r} is not a snapshot: expected JSON, {exc}') from exc
        if not isinstance(found, dict) or found.get('version') != VERSION or 'pools' not in found:
            raise MonitorError(f'line {number} of {path!r} is not a snapshot of this version of gcpool')
        snapshots.append(found)
    if not snapshots:
        raise MonitorError(f'the recording {path!r} is empty')
    return snapshots


def _names(snapshots: Sequence[Mapping[str, Any]]) -> list[str]:
    most: dict[str, int] = {}
    for snapshot in snapshots:
        for pool in snapshot['pools']:
            most[pool['name']] = max(most.get(pool['name'], 0), pool['stats']['acquires'])
    return sorted(sorted(most, key=lambda name: -most[name])[:MAX_POOLS])


def _changes(snapshots: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, Change]]:
    """A pool in the snapshots that have it: when, and what has happened since the snapshot before."""
    changes: list[tuple[float, Change]] = []
    earlier: Mapping[str, Any] | None = None
    since = 0.0
    for snapshot in snapshots:
        pool = next((pool for pool in snapshot['pools'] if pool['name'] == name), None)
        if pool is not None:
            changes.append((snapshot['monotonic'], Change(pool, earlier, snapshot['monotonic'] - since)))
        earlier, since = pool, snapshot['monotonic']
    return changes


def _draw(connections: Any, waits: Any, changes: Sequence[tuple[float, Change]], began: float) -> None:
    times = [time - began for time, _ in changes]
    pools = [change for _, change in changes]
    drawn = {state: colour for state, colour in _STACKED.items() if any(change.gauge(state) for change in pools)}
    if drawn:  # stackplot() refuses to draw nothing
        connections.stackplot(
            times,
            [[change.gauge(state) for change in pools] for state in drawn],
            labels=[state.replace('_', ' ') for state in drawn],
            colors=list(drawn.values()),
            alpha=0.7,
            step='post',
        )
    waiting = [change.gauge('waiting') for change in pools]
    connections.step(times, waiting, color='black', where='post', label='waiting acquires')
    connections.set_ylabel('connections')
    connections.set_ylim(bottom=0)
    connections.legend(ncols=len(drawn) + 1, **_LEGEND)
    for q, alpha in _PERCENTILES.items():
        # The first snapshot covers everything before it.
        found = [change.percentile('wait', q) for change in pools[1:]]
        values = [float('nan') if value is None else max(value, 1e-7) for value in found]
        waits.plot(times[1:], values, color='C0', alpha=alpha, marker='.', label=f'{q} % of the waits')
    waits.set_yscale('log')
    waits.set_ylabel('at most, s')
    waits.set_xlabel('seconds')
    waits.legend(ncols=len(_PERCENTILES), **_LEGEND)
