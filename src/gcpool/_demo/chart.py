"""A chart in plain text: values over time, one column per interval."""

import math
from collections.abc import Mapping, Sequence

BLOCKS = ' ▁▂▃▄▅▆▇█'
PLAIN = ' .:-=+*#@'  # where the output cannot show blocks


def resample(samples: Sequence[tuple[float, int]], columns: int) -> list[int]:
    """Divide the time of the samples into columns.

    :param samples: the time, in seconds from the beginning, and the value, in order of time
    :param columns: the number of columns, 1 or more
    :return: the highest value of each column; where there was no sample, the one before it
    """
    found: list[int | None] = [None] * columns
    if samples:
        end = samples[-1][0] or 1.0
        for at, value in samples:
            column = min(int(at / end * columns), columns - 1)
            found[column] = max(value, found[column] or 0)
    values: list[int] = []
    for highest in found:
        values.append(highest if highest is not None else values[-1] if values else 0)
    return values


def line_of(values: Sequence[int], top: int, *, plain: bool) -> str:
    """Return a sign for each value. Only 0 has the empty sign."""
    signs = PLAIN if plain else BLOCKS
    return ''.join(
        signs[min(math.ceil(value / max(top, 1) * (len(signs) - 1)), len(signs) - 1)] if value else signs[0]
        for value in values
    )


def marks_of(moments: Mapping[str, float], end: float, columns: int) -> str:
    """Return a line with a sign under each moment that lies within the time."""
    line = [' '] * columns
    for sign, at in moments.items():
        if 0 <= at <= end:
            line[min(int(at / (end or 1.0) * columns), columns - 1)] = sign
    return ''.join(line)
