"""The command line: ``python -m gcpool demo``."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from gcpool._version import __version__

USAGE_ERROR = 2  # as in argparse
INTERRUPTED = 130  # what a shell reports for a program that SIGINT ended


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'expected a whole number from {least} to {most}, got {text!r}')
        return value

    return parse


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'expected a number of seconds from {least:g} to {most:g}, got {text!r}')
        return value

    return parse


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m gcpool', description='Connection pools for threads and asyncio, for any kind of connection.'
    )
    parser.add_argument('--version', action='version', version=f'gcpool {__version__}')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', dest='command', required=True)
    demo = commands.add_parser(
        'demo',
        help='put pools under load, kill their server half-way, and report',
        description='Shows a warm start, a spike of requests, and a drain under load. Puts pools under load from many '
        'threads, then from very many asyncio tasks, against an SQLite database and a TCP server in its own process. '
        'Half-way through each phase the server is killed and restarted. Reports what the pools did, compares the bare '
        'cycle with the pure-Python generic-connection-pool if that is installed, and checks that nothing was lost. '
        'Takes about 30 seconds.',
        epilog='Exit code: 0 if nothing was lost, 1 if something was, 2 for a wrong option or a missing package, '
        '130 if interrupted.',
    )
    demo.add_argument(
        '--seconds', type=_seconds(0.5, 3600.0), metavar='S', help='length of each of the two phases (default: 6)'
    )
    demo.add_argument(
        '--threads', type=_whole_number(1, 2_000), metavar='N', help='threads of the first phase (default: 64)'
    )
    demo.add_argument(
        '--tasks', type=_whole_number(1, 1_000_000), metavar='N', help='tasks of the second phase (default: 10000)'
    )
    demo.add_argument(
        '--connections',
        type=_whole_number(1, 200),
        metavar='N',
        help='connections of each pool of threads; the pool of tasks has twice as many (default: 8)',
    )
    demo.add_argument('--no-compare', action='store_true', help='skip the comparison with generic-connection-pool')
    demo.add_argument('--quick', action='store_true', help='use defaults that take less than 15 seconds')
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: what follows ``python -m gcpool``, None for this process's own
    :return: the exit code
    :raises SystemExit: wrong arguments, or ``--help`` or ``--version``
    """
    options = _build_parser().parse_args(arguments)
    try:
        return _run_demo(options)
    except KeyboardInterrupt:
        return _complain('Interrupted.', INTERRUPTED)


def _run_demo(options: argparse.Namespace) -> int:
    try:
        from gcpool._demo.conductor import Demo, Settings
        from gcpool._demo.report import Report
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition('.')[0] != 'rich':
            raise
        return _complain('The demo needs rich, which is not installed: pip install gcpool[demo]', USAGE_ERROR)

    quick = options.quick
    settings = Settings(
        seconds=options.seconds or (0.8 if quick else 6.0),
        threads=options.threads or (16 if quick else 64),
        tasks=options.tasks or (500 if quick else 10_000),
        connections=options.connections or (4 if quick else 8),
        outage=0.05 if quick else 0.3,
        rounds=0 if options.no_compare else 3 if quick else 9,
        round_seconds=0.01 if quick else 0.04,
    )
    return Demo(settings, Report()).run()


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f'{message}\n')
    return code


if __name__ == '__main__':
    sys.exit(main())
