"""The tables and the chart of the comparison on real servers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import pictures
from .measure import quartiles
from .servers_measure import WAIT_MEDIAN, LoadResult, Measure

__all__ = ['draw_chart', 'print_loads', 'print_notes']


def print_loads(results: Sequence[LoadResult], console: Console) -> None:
    """Print the medians of what each subject did. They depend on the machine as much as on the pool."""
    for result in results:
        table = Table(title=f'[bold]{result.case}[/bold]', title_justify='left')
        table.add_column('', no_wrap=True)
        for measure in result.measures:
            table.add_column(_heading(measure), justify='right')
        for name in result.loads:
            table.add_row(name, *(_number(result, name, measure) for measure in result.measures))
        for name, reason in result.missing.items():
            table.add_row(f'[dim]{name} is missing: {reason}[/dim]')
        console.print(table)


def print_notes(results: Sequence[LoadResult], console: Console) -> None:
    """Print what each subject does with a connection, once for all cases in which that is the same."""
    cases: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for result in results:
        if result.notes:
            cases.setdefault(tuple(result.notes.items()), []).append(result.case)
    for notes, names in cases.items():
        console.print('What is done when a connection is taken; when it is given back:', *names, sep='\n')
        for name, note in notes:
            console.print(f'  [bold]{name}[/bold]: {note}')
        console.print()


def draw_chart(results: Sequence[LoadResult], stem: Path) -> list[Path]:
    """Draw one row per case, one bar per subject, into a PNG and an SVG; without the cases of only one measure."""
    plt = pictures.use_agg()
    drawn = [result for result in results if result.loads and len(result.measures) >= 4]
    figure, rows = plt.subplots(
        len(drawn), 4, figsize=(20, 2.2 * len(drawn)), layout='constrained', squeeze=False, sharey='row'
    )
    for axes, result in zip(rows, drawn, strict=True):
        measures = (
            result.measures
            if len(result.measures) == 4
            else [measure for measure in result.measures if measure != WAIT_MEDIAN]
        )
        for axis, measure in zip(axes, measures, strict=True):
            _draw_bars(axis, result, measure)
        axes[0].set_title(result.case, loc='left', fontweight='bold')
    paths = pictures.save(figure, stem, dpi=80)
    plt.close(figure)
    return paths


def _draw_bars(axes: Any, result: LoadResult, measure: Measure) -> None:
    medians = {name: quartiles(result.values(name, measure))[1] for name in result.loads}
    bars = axes.barh(
        list(medians),
        list(medians.values()),
        color=['C0' if name.startswith('gcpool') else 'silver' for name in medians],
    )
    axes.bar_label(bars, [f'{median:,.3g}' if median < 1000 else f'{median:,.0f}' for median in medians.values()])
    axes.set_xlim(0, max(*medians.values(), 1e-9) * 1.25)
    axes.set_xlabel(_heading(measure))
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def _heading(measure: Measure) -> str:
    return f'{measure.text},{measure.unit}' if measure.unit else measure.text


def _number(result: LoadResult, name: str, measure: Measure) -> str:
    median = quartiles(result.values(name, measure))[1]
    return f'{median:,.0f}' if median >= 100 else f'{median:.3g}'
