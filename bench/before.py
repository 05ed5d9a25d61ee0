"""Compare the cycle of a warm connection with that of another version: ``python -m bench.before DIRECTORY``."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import gcpool

from . import report
from .measure import Figure, Goal, Result, calibrate, ratios
from .runtimes import all_runtimes, check_reuse, warm_up

__all__ = ['main']

_KINDS = ('cycle', 'context_manager')
_RUNTIMES = ('threads', 'asyncio')
#: nanoseconds of one measurement, and how many a process makes: the fastest counts
_AT_LEAST = 20_000_000
_REPETITIONS = 10


def measure() -> None:
    """Print the nanoseconds of a cycle and a context manager in each runtime, with the gcpool that is found."""
    with all_runtimes() as runtimes:
        for runtime in runtimes:
            subject = runtime.subjects.GcPool()
            runtime.call(subject.open)
            for kind in _KINDS:
                run = runtime.timed(getattr(subject, kind))
                created = warm_up(subject, run)
                number = calibrate(run, _AT_LEAST)
                print(min(run(number) for _ in range(_REPETITIONS)) / number)
                check_reuse(subject, created)
            runtime.call(subject.close)


def _measured_in(directory: Path) -> list[float]:
    paths = [str(directory), str(Path(__file__).resolve().parents[1])]
    done = subprocess.run(
        [sys.executable, '-c', 'from bench.before import measure; measure()'],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        encoding='ascii',
        check=True,
    )
    return [float(line) for line in done.stdout.split()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m bench.before', description=__doc__)
    parser.add_argument('directory', type=Path, help='holds the package gcpool of the other version, compiled')
    parser.add_argument('--rounds', type=int, default=15, metavar='N', help='(default: %(default)s)')
    options = parser.parse_args(arguments)
    places = [Path(gcpool.__file__).resolve().parents[1], options.directory.resolve()]
    if not (places[1] / 'gcpool').is_dir():
        parser.error(f'{options.directory} holds no package gcpool')
    names = [f'{runtime}: {kind}' for runtime in _RUNTIMES for kind in _KINDS]
    samples: list[list[list[float]]] = [[], []]
    progress = Console(stderr=True)
    for turn in range(options.rounds):
        with progress.status(f'{turn + 1}/{options.rounds}'):
            for index in (0, 1) if turn % 2 == 0 else (1, 0):
                samples[index].append(_measured_in(places[index]))
    results = []
    for name, now, before in zip(names, zip(*samples[0], strict=True), zip(*samples[1], strict=True), strict=True):
        figures = [
            Figure('cost, in that of the other version', ratios(now, before), goal=Goal('<=', 1.01)),
            # The figure that a busy machine disturbs least.
            Figure('the same, by the fastest of all rounds', [min(now) / min(before)], goal=Goal('<=', 1.01)),
        ]
        results.append(Result(name, {'this': list(now), 'other': list(before)}, figures=figures))
    report.print_table(results, Console() if sys.stdout.isatty() else Console(width=120))
    return 0


if __name__ == '__main__':
    sys.exit(main())
