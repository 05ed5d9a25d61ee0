"""The table, the figures as JSON, and the chart."""

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import gcpool

from . import pictures
from .measure import Figure, Result, quartiles, ratios
from .settings import Settings

__all__ = ['draw_chart', 'print_table', 'write_json']

#: Distributions whose versions are recorded with the figures, besides gcpool's own.
_DISTRIBUTIONS = [
    'generic-connection-pool',
    'psycopg2-binary',
    'psycopg',
    'psycopg-pool',
    'SQLAlchemy',
    'DBUtils',
    'urllib3',
    'asyncpg',
    'asyncio-connection-pool',
    'aiosqlitepool',
    'redis',
]


def print_table(results: Sequence[Result], console: Console) -> None:
    """Print every figure with its goal. Only ratios, if there is something to divide by: times are in the JSON."""
    table = Table('figure', 'median', 'quartiles', 'goal', '')
    for column in table.columns[1:3]:
        column.justify = 'right'
    for result in results:
        table.add_section()
        table.add_row(f'[bold]{result.case}[/bold]')
        for figure in result.figures:
            lower, median, upper = quartiles(figure.values)
            spread = f'{_number(lower)} to {_number(upper)}' if len(figure.values) > 1 else ''
            goal, verdict = _verdict(figure, median)
            table.add_row(f'  {figure.text}', f'{_number(median)}{figure.unit}', spread, goal, verdict)
        for name, reason in result.missing.items():
            table.add_row(f'  [dim]{name} is missing: {reason}[/dim]')
    console.print(table)
    goals = [(figure, quartiles(figure.values)[1]) for result in results for figure in result.figures if figure.goal]
    met = sum(figure.goal.is_met(median) for figure, median in goals if figure.goal)
    console.print(f'{met} of {len(goals)} goals met.' if goals else 'No goal has been set for what was measured.')


def write_json(results: Sequence[Result], settings: Settings, path: Path) -> None:
    """Write every sample of every round, and the environment of the measurement."""
    document = {
        'environment': {
            'python': platform.python_version(),
            'implementation': platform.python_implementation(),
            'free_threaded': not getattr(sys, '_is_gil_enabled', lambda: True)(),
            'system': platform.system(),
            'machine': platform.machine(),
            'cpus': os.cpu_count(),
            'versions': _versions(),
        },
        'settings': dataclasses.asdict(settings),
        'cases': [
            {
                'case': result.case,
                'unit': result.unit,
                'samples': {name: [round(value, 2) for value in values] for name, values in result.samples.items()},
                'figures': [_figure_as_json(figure) for figure in result.figures],
                'missing': result.missing,
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(document, indent=1) + '\n', encoding='utf-8')


def draw_chart(results: Sequence[Result], stem: Path) -> list[Path]:
    """Draw the cost of a cycle in each pool, and the throughput of many threads, into a PNG and an SVG."""
    plt = pictures.use_agg()
    by_case = {result.case: result for result in results}
    figure, ((threads, loop), (rate, fairness)) = plt.subplots(2, 2, figsize=(14, 9), layout='constrained')
    _draw_cycles(threads, 'threads', by_case)
    _draw_cycles(loop, 'asyncio', by_case)
    _draw_contention(rate, 'of the ideal rate', 'Threads with a hold of 1 ms: rate, ideal = 1', by_case)
    _draw_contention(fairness, 'Jain fairness index', 'Threads with a hold of 1 ms: Jain fairness index', by_case)
    paths = pictures.save(figure, stem, dpi=110)
    plt.close(figure)
    return paths


def _draw_cycles(axes: Any, runtime: str, by_case: dict[str, Result]) -> None:
    """One bar per pool: the cost of its fastest cycle, relative to that of the first subject."""
    cycle, block = by_case[f'{runtime}: cycle'], by_case[f'{runtime}: context_manager']
    first = next(iter(cycle.samples))
    bars = {name: quartiles(ratios(samples, cycle.samples[first])) for name, samples in cycle.samples.items()}
    for name, samples in block.samples.items():
        if name not in bars:
            # It has nothing else, so it is compared with the first subject's context manager.
            bars[f'{name} (async with)'] = quartiles(ratios(samples, block.samples[first]))
    bars = dict(sorted(bars.items(), key=lambda item: -item[1][1]))
    lower, medians, upper = zip(*bars.values(), strict=True)
    errors = [
        [median - bound for median, bound in zip(medians, lower, strict=True)],
        [bound - median for median, bound in zip(medians, upper, strict=True)],
    ]
    drawn = axes.barh(list(bars), medians, xerr=errors, color=['C0' if name == first else 'silver' for name in bars])
    axes.bar_label(drawn, [f'{median:.3g}' for median in medians], padding=4)
    axes.set_xscale('log')
    axes.set_xlim(min(medians) / 3, max(medians) * 4)
    axes.set_title(f'{runtime}: cost of acquire + release, {first} = 1')


def _draw_contention(axes: Any, ending: str, title: str, by_case: dict[str, Result]) -> None:
    """Two bars per pool, one for each mixture of threads and connections."""
    names: list[str] = []
    for place, mixture in enumerate(('32 on 8', '100 on 10')):
        result = by_case[f'threads: contention, {mixture}, hold 1 ms']
        figures = [figure for figure in result.figures if figure.text.endswith(ending)]
        names = [figure.text.split(':')[0] for figure in figures]
        medians = [quartiles(figure.values)[1] for figure in figures]
        drawn = axes.barh([row + place * 0.4 for row in range(len(names))], medians, 0.38, label=mixture)
        axes.bar_label(drawn, [f'{median:.2f}' for median in medians], padding=4)
    axes.set_yticks([row + 0.2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.legend(title='threads on connections', loc='upper center', bbox_to_anchor=(0.5, -0.08), ncols=2)
    axes.set_title(title)


def _figure_as_json(figure: Figure) -> dict[str, Any]:
    lower, median, upper = (float(f'{value:.5g}') for value in quartiles(figure.values))
    goal, verdict = _verdict(figure, median)
    return {
        'figure': figure.text,
        'unit': figure.unit.strip(),
        'lower_quartile': lower,
        'median': median,
        'upper_quartile': upper,
        'goal': goal,
        'verdict': verdict,
    }


def _verdict(figure: Figure, median: float) -> tuple[str, str]:
    if figure.goal is None:
        return '', ''
    return f'{figure.goal.relation} {figure.goal.bound:g}{figure.unit}', 'met' if figure.goal.is_met(
        median
    ) else 'missed'


def _number(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _versions() -> dict[str, str]:
    installed = {distribution.name: distribution.version for distribution in metadata.distributions()}
    # The imported version is measured, which need not be installed: a checkout has no distribution.
    return {
        'gcpool': gcpool.__version__,
        **{name: installed[name] for name in _DISTRIBUTIONS if name in installed},
    }
