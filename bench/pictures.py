"""Writes a chart as a PNG and as an SVG that follows the theme of the page that shows it."""

import io
from pathlib import Path
from typing import Any

__all__ = ['follow_theme', 'save', 'use_agg']

#: The ink of matplotlib, and the one on a dark page. Where matplotlib writes no colour, as for text, an SVG is black.
_STYLE = """
  <style>
    svg { fill: #000000 }
    @media (prefers-color-scheme: dark) {
      svg { fill: #e6e8eb }
      [style*="stroke: #000000"] { stroke: #e6e8eb !important }
    }
  </style>
"""


def use_agg() -> Any:
    """Return ``matplotlib.pyplot``, for files alone, with which the same figures give the same file."""
    import matplotlib as mpl

    mpl.use('agg')
    mpl.rcParams['svg.hashsalt'] = 'gcpool'
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, stem: Path, dpi: int) -> list[Path]:
    """Write a chart.

    :param stem: the path without a suffix
    :param dpi: dots per inch of the PNG
    :return: the paths of both files
    """
    paths = [stem.with_suffix('.svg'), stem.with_suffix('.png')]
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
    paths[0].write_text(follow_theme(text.getvalue()), encoding='utf-8')
    figure.savefig(paths[1], dpi=dpi)
    return paths


def follow_theme(svg: str) -> str:
    """Remove the white background of a matplotlib chart, and make its ink light on a dark page."""
    start = svg.index('>', svg.index('<svg')) + 1
    return svg[:start] + _STYLE.rstrip() + svg[start:].replace('fill: #ffffff', 'fill: none')
