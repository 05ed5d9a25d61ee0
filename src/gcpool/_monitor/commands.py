"""The commands of ``python -m gcpool`` that watch another process."""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from gcpool.exceptions import MonitorError

from .client import ask, find

__all__ = ['run_holders', 'run_plot', 'run_top']


def run_top(options: argparse.Namespace) -> int:
    """Show the pools of a process, repeatedly on a terminal; elsewhere once, unless the number is given.

    :raises MonitorError: when the process cannot be watched
    """
    path = find(options.target)
    looks = _looks(path, options.interval)
    if options.json:
        for look in itertools.islice(looks, options.count or 1):
            sys.stdout.write(json.dumps(look) + '\n')
            sys.stdout.flush()
        return 0
    from .display import make_console, overview

    console = make_console()
    plain_signs = not str(console.encoding).lower().startswith('utf')

    def show(look: dict[str, Any], before: dict[str, Any] | None) -> Any:
        return overview(look, before, width=console.width, plain_signs=plain_signs)

    if console.is_terminal:
        from rich.live import Live

        # Without a number of updates it is a full screen, until Ctrl-C ends it, which is not an error.
        with (
            Live(console=console, screen=options.count is None, auto_refresh=False) as live,
            suppress(KeyboardInterrupt),
        ):
            before: dict[str, Any] | None = None
            for look in itertools.islice(looks, options.count):
                live.update(show(look, before), refresh=True)
                before = look
        return 0
    # The rates of the first output need two snapshots.
    for earlier, look in itertools.islice(itertools.pairwise(looks), options.count or 1):
        console.print(show(look, earlier))
    return 0


def _looks(path: str, interval: float) -> Iterator[dict[str, Any]]:
    """Ask a process for snapshots, at equal intervals as long as it answers in time.

    :raises MonitorError: when the process cannot be watched, or ends
    """
    due = time.monotonic()
    look = ask(path)
    while True:
        yield look
        due = max(due + interval, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))
        try:
            look = ask(path)
        except MonitorError as exc:
            raise MonitorError(f'process {look["pid"]} does not serve its pools any more: {exc}') from exc


def run_holders(options: argparse.Namespace) -> int:
    """Show who holds connections in use.

    :raises MonitorError: when the process cannot be watched
    """
    look = ask(find(options.target))
    if options.json:
        found = [{'pool': pool['name'], **holder} for pool in look['pools'] for holder in pool.get('holders', ())]
        sys.stdout.write(json.dumps(sorted(found, key=lambda holder: -holder['seconds'])) + '\n')
        return 0
    from .display import holders, make_console

    make_console().print(holders(look), soft_wrap=True)
    return 0


def run_plot(options: argparse.Namespace) -> int:
    """Draw what was recorded.

    :raises MonitorError: when the file is not a recording
    """
    from .plotting import plot

    sys.stdout.write(f'{plot(options.file, options.output)}\n')
    return 0
