"""The output of the demo: a live line while it runs, tables at the end. The only module that needs rich."""

import contextlib
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table

from gcpool._demo import scenes
from gcpool._demo.chart import BLOCKS, line_of, marks_of, resample
from gcpool._demo.comparison import Comparison
from gcpool._demo.figures import Course, Figures, Glance
from gcpool._version import __version__

PIPED_WIDTH = 100  # columns of the report without a terminal
CHART_WIDTH = 64  # maximum number of columns of a chart
LABEL_WIDTH = 26  # columns of the names of its lines
LINE_EVERY = 1.0  # seconds between two progress lines where no line can be overwritten


def version_line() -> str:
    """Return the versions of gcpool and of its platform."""
    gil = '' if getattr(sys, '_is_gil_enabled', lambda: True)() else ', no GIL'
    return f'gcpool {__version__}, {platform.python_implementation()} {platform.python_version()}{gil}, {sys.platform}'


class ProgressLine:
    """The state of one phase, drawn in place on a terminal, as a plain line each second elsewhere."""

    def __init__(self, console: Console, name: str, total: float):
        self._console = console
        self._name = name
        self._total = total
        self._began = self._last_line = time.monotonic()
        self._text = ''
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._progress = Progress(
                TextColumn('{task.description}', style='bold'),
                BarColumn(bar_width=10),
                TextColumn('{task.fields[text]}', table_column=Column(no_wrap=True)),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task(name, total=total, text='')

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show the line until the block ends."""
        if self._progress is None:
            yield
        else:
            with self._progress:
                yield

    def show(self, completed: float, text: str) -> None:
        """Show that ``completed`` of the total is done, and the text."""
        if self._progress is not None:
            self._progress.update(self._task, completed=min(completed, self._total), text=text)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._console.print(f'{self._name:<8} {now - self._began:4.1f} s  {text}', soft_wrap=True)


def describe_glance(glance: Glance, rate: float, server: str) -> str:
    """Return the text of the progress line of a phase."""
    return (
        f'{rate:>6,.0f}/s {glance.out:>3} in use {glance.waiting:>6,} waiting {glance.errors:>6,} errors, '
        f'server {server}'
    )


class Report:
    """Prints the results of the demo.

    :param console: where to; by default the standard output
    """

    def __init__(self, console: Console | None = None):
        if console is None:
            console = Console(highlight=False)
            if not console.is_terminal:
                console = Console(highlight=False, width=PIPED_WIDTH)
        self.console = console

    def say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    def header(self) -> None:
        self.say(f'{version_line()}, {os.cpu_count()} processors')

    def progress(self, name: str, total: float) -> ProgressLine:
        return ProgressLine(self.console, name, total)

    def figures(self, columns: Sequence[Figures]) -> None:
        """Print a column for each pool."""
        self.say('\nPools under load, the server killed half-way', style='bold')
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column('', no_wrap=True)
        for column in columns:
            table.add_column(f'{column.title}\n{column.connections} connections', justify='right')
        rows: list[tuple[str, list[str]]] = [
            ('cycles', [f'{c.tally.answered:,}' for c in columns]),
            ('cycles per second', [f'{c.rate:,.0f}' for c in columns]),
            ('acquire latency, median', [_duration(c.wait_percentile(50)) for c in columns]),
            ('acquire latency, 99th percentile', [_duration(c.wait_percentile(99)) for c in columns]),
            ('fairness (Jain, 1 is equal shares)', [f'{c.fairness:.3f}' for c in columns]),
            ('connections created', [f'{c.stats["created"]:,}' for c in columns]),
            ('connections reused', [f'{c.stats["acquires"] - c.stats["created"]:,}' for c in columns]),
            ('connections found dead', [f'{c.stats["dead"]:,}' for c in columns]),
            ('connections broken in use', [f'{c.stats["broken"]:,}' for c in columns]),
            ('acquires that waited', [f'{c.stats["waits"]:,}' for c in columns]),
            ('errors, each retried:', ['' for _ in columns]),
            ('  connecting failed', [f'{c.tally.refused:,}' for c in columns]),
            ('  request broken half-way', [f'{c.tally.broken:,}' for c in columns]),
            ('  timed out', [f'{c.tally.timed_out:,}' for c in columns]),
            ('  wrong answer', [f'{c.tally.wrong:,}' for c in columns]),
        ]
        for label, cells in rows:
            table.add_row(label, *cells)
        self.console.print(table)
        self.say('Latency is mostly the wait for a turn: there are far more clients than connections.')
        self.say('Tasks have few turns each, so one turn more or less shows in their fairness.')

    def scenes(self, played: Sequence[scenes.Scene]) -> None:
        """Print a column for each scene."""
        self.say(
            f'\nA warm start, a spike, a drain under load; connecting takes {_duration(scenes.CONNECT)}, '
            f'a request {_duration(scenes.REQUEST)}',
            style='bold',
        )
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column('', no_wrap=True)
        for scene in played:
            table.add_column(scene.title, justify='right')
        rows: list[tuple[str, list[str]]] = [
            ('first request, no connections', [_duration(s.first_cold) for s in played]),
            (f'warm_up() of {scenes.IDLE}, wait()', [_duration(s.warmed_up) for s in played]),
            ('first request after that', [_duration(s.first_warm) for s in played]),
            (f'{scenes.CLIENTS} at once, connections opened', [f'{s.opened}' for s in played]),
            (f'{scenes.CLIENTS} at once, median wait', [_duration(s.median_wait) for s in played]),
            (f'{scenes.CLIENTS} at once, all served after', [_duration(s.all_served) for s in played]),
            (f'drain() of {scenes.DRAINED}, connections replaced', [f'{s.drain.replaced}' for s in played]),
            (f'drain() of {scenes.DRAINED}, longest wait', [_duration(s.drain.longest_wait) for s in played]),
        ]
        for label, cells in rows:
            table.add_row(label, *cells)
        self.console.print(table)

    def comparisons(self, results: Sequence[Comparison], peer: str) -> None:
        """Print the bare cycle through both pools."""
        self.say('\nThe bare cycle, a warm connection that does nothing', style='bold')
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column('', no_wrap=True)
        table.add_column('gcpool', justify='right')
        table.add_column(peer, justify='right')
        table.add_column('ratio', justify='right')
        for result in results:
            table.add_row(result.case, _duration(result.ours), _duration(result.peer), f'{_significant(result.ratio)}x')
        self.console.print(table)

    def courses(self, courses: Sequence[Course]) -> None:
        """Draw each phase over time: connections in use and idle, and waiting acquires."""
        encoding = getattr(self.console.file, 'encoding', None) or 'utf-8'
        plain = not _can_encode(BLOCKS, encoding)
        columns = max(min(CHART_WIDTH, self.console.width - LABEL_WIDTH - 1), 10)
        for course in courses:
            if not course.looks:
                continue
            end = course.looks[-1][0]
            self.say(f'\nWhat the pools did: {course.title}, {end:.1f} s', style='bold')
            for label, values, colour in (
                ('in use', [(at, glance.out) for at, glance in course.looks], 'red'),
                ('idle', [(at, glance.idle) for at, glance in course.looks], 'green'),
                ('waiting', [(at, glance.waiting) for at, glance in course.looks], 'yellow'),
            ):
                most = max(value for _, value in values)
                name = f'  {label}, at most {most:,}'
                self.say(f'{name:<{LABEL_WIDTH}}{line_of(resample(values, columns), most, plain=plain)}', style=colour)
            marks = marks_of({'K': course.killed_at, 'B': course.back_at}, end, columns)
            if marks.strip():
                self.say(f'{"  K server killed, B back":<{LABEL_WIDTH}}{marks}')

    def checks(self, checks: Sequence[tuple[str, bool]]) -> bool:
        """Print the checks.

        :return: whether all of it holds
        """
        self.say('\nChecked', style='bold')
        for text, holds in checks:
            self.say(f'  {"ok    " if holds else "FAILED"}  {text}', style=None if holds else 'bold red')
        return all(holds for _, holds in checks)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return '-'
    for unit, size in (('s', 1.0), ('ms', 1e-3), ('us', 1e-6)):
        if seconds >= size:
            return f'{_significant(seconds / size)} {unit}'
    return f'{seconds * 1e9:.0f} ns'


def _significant(value: float) -> str:
    """Return the number with about three significant digits."""
    return f'{value:,.2f}' if value < 9.995 else f'{value:,.1f}' if value < 99.95 else f'{value:,.0f}'
