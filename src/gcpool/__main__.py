"""The command line: ``python -m gcpool demo``, ``check``, and the commands that watch the pools of a process."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence

from gcpool._version import __version__

NOT_WATCHED = 1
USAGE_ERROR = 2  # as in argparse
INTERRUPTED = 130  # as a shell reports for a program that SIGINT ended


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
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', dest='command')
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
    _add_check(commands)
    _add_watching(commands)
    return parser


def _add_check(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    check = commands.add_parser(
        'check',
        help='try an endpoint, and show what works',
        description='Tries an endpoint with the connection manager for it, and shows what works: whether the host '
        'resolves, the port connects, the server accepts the user; how long a round trip takes, and how many '
        'more connections the server accepts. Passwords are never printed.',
        epilog='Exit code: 0 if all of it works, 1 if a step fails, 2 for a URL that cannot be checked or a missing '
        'driver, 130 if interrupted.',
    )
    check.add_argument(
        'url',
        metavar='URL',
        nargs='+',  # argparse would print a second one, which may be the rest of a password
        help='postgresql://, mysql://, redis://, rediss://, http://, https://, tcp://host:port, tls://host:port, '
        'unix:///path or sqlite:///path',
    )
    check.add_argument(
        '--timeout',
        type=_seconds(0.1, 3600.0),
        default=5.0,
        metavar='SECONDS',
        help='seconds that each step may take (default: 5)',
    )


_WATCHED = (
    'The process serves its pools if it was started with GCPOOL_MONITOR=1, or has called gcpool.monitor.serve(). '
    'Only its own user can watch it.'
)
_EXIT_CODES = (
    'Exit code: 0, 1 if the process cannot be watched or the file is not a recording, 2 for a wrong option or a '
    'missing package, 130 if interrupted.'
)


def _add_watching(commands: 'argparse._SubParsersAction[argparse.ArgumentParser]') -> None:
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument(
        'target',
        metavar='PID|PATH',
        nargs='?',
        help='the process, or the file at which it serves (default: the only process of this user that serves)',
    )
    target.add_argument('--json', action='store_true', help='print JSON, one object per line')
    top = commands.add_parser(
        'top',
        parents=[target],
        help='watch the pools of a process',
        description=f'Shows the pools of a process: connections by state, rates, waits, endpoints, and who has held a '
        f'connection for longest. On a terminal it continues until Ctrl-C. {_WATCHED}',
        epilog=_EXIT_CODES,
    )
    top.add_argument(
        '--interval',
        type=_seconds(0.1, 3600.0),
        default=1.0,
        metavar='S',
        help='seconds between updates (default: 1)',
    )
    top.add_argument(
        '--count',
        type=_whole_number(1, 1_000_000_000),
        metavar='N',
        help='end after this many updates (default: no end; 1 if the output is not a terminal)',
    )
    commands.add_parser(
        'holders',
        parents=[target],
        help='show who holds connections in use, and where they were acquired',
        description=f'Lists the connections in use, the longest first: who holds them, and the frames of the code that '
        f'acquired them. For pools with record_holders or leak_threshold. {_WATCHED}',
        epilog=_EXIT_CODES,
    )
    plot = commands.add_parser(
        'plot',
        help='draw a recorded run',
        description='Draws what gcpool.monitor.record(), or top --json, has written: connections in use and idle, '
        'waiting acquires, and percentiles of the waits, over time.',
        epilog=_EXIT_CODES,
    )
    plot.add_argument('file', metavar='FILE', help='the recording: JSON, one snapshot per line')
    plot.add_argument('--output', metavar='FILE', help='the picture, .svg or .png (default: FILE.svg)')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param arguments: what follows ``python -m gcpool``, None for this process's own
    :return: the exit code
    :raises SystemExit: wrong arguments, or ``--help`` or ``--version``
    """
    parser = _build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    run = {'demo': _run_demo, 'check': _run_check}.get(options.command, _run_watching)
    try:
        return run(options)
    except KeyboardInterrupt:
        return _complain('Interrupted.', INTERRUPTED)
    except ModuleNotFoundError as error:
        package = (error.name or '').partition('.')[0]
        if package not in _EXTRAS:
            raise
        extra = 'demo' if options.command == 'demo' else _EXTRAS[package]
        what = 'The demo' if options.command == 'demo' else f'python -m gcpool {options.command}'
        return _complain(f'{what} needs {package}, which is not installed: pip install gcpool[{extra}]', USAGE_ERROR)


# The packages that a command needs, and the extra that installs each.
_EXTRAS = {'rich': 'monitor', 'matplotlib': 'plot'}


def _run_watching(options: argparse.Namespace) -> int:
    from gcpool._monitor import commands
    from gcpool.exceptions import MonitorError

    run = {'top': commands.run_top, 'holders': commands.run_holders, 'plot': commands.run_plot}[options.command]
    try:
        return run(options)
    except MonitorError as error:
        return _complain(f'{str(error)[:1].upper()}{str(error)[1:]}', NOT_WATCHED)
    except BrokenPipeError:
        # The reader of the output has closed it, as head does. Python would report that when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run_demo(options: argparse.Namespace) -> int:
    from gcpool._demo.conductor import Demo, Settings
    from gcpool._demo.report import Report

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


def _run_check(options: argparse.Namespace) -> int:
    from gcpool._check.steps import run_check

    return run_check(options.url, options.timeout, lambda line: print(line, flush=True))  # noqa: T201


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f'{message}\n')
    return code


if __name__ == '__main__':
    sys.exit(main())
