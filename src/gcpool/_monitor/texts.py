"""Figures and names as texts for a terminal."""

import math
import os
from collections.abc import Sequence
from typing import Any

__all__ = ['duration', 'place', 'printable', 'rate', 'steps']


def duration(seconds: float | None) -> str:
    """A time, with about three significant digits."""
    if seconds is None or math.isnan(seconds):
        return '-'
    if seconds >= 120:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f'{hours} h {minutes:02} min' if hours else f'{minutes} min {rest:02} s'
    for unit, size in (('s', 1.0), ('ms', 1e-3), ('us', 1e-6)):
        if seconds >= size:
            value = seconds / size
            return (
                f'{value:.2f} {unit}'
                if value < 9.995
                else f'{value:.1f} {unit}'
                if value < 99.95
                else f'{value:.0f} {unit}'
            )
    return f'{seconds * 1e9:.0f} ns' if seconds else '0 s'


def rate(value: float | None) -> str:
    """A number per second."""
    if value is None:
        return '-'
    return f'{value:,.0f}' if value >= 9.95 or not value else f'{value:.1f}'


def printable(text: object) -> str:
    """A text of another process, without characters that a terminal takes for a command."""
    return ''.join(char if char.isprintable() else f'\\x{ord(char):02x}' for char in str(text))


def place(frames: Sequence[Sequence[Any]]) -> str:
    """Where a connection was acquired: the innermost frame that was recorded."""
    if not frames:
        return ''
    file, line, function = frames[0]
    return printable(f'{os.path.basename(str(file))}{_at(line)} {function}')


def steps(frames: Sequence[Sequence[Any]]) -> list[str]:
    """All frames that were recorded, innermost first."""
    return [printable(f'{file}{_at(line)} in {function}') for file, line, function in frames]


def _at(line: int | None) -> str:
    return '' if line is None else f':{line}'
