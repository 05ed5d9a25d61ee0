"""Compare gcpool with the pure-Python pool, with plain queues and with other pools: ``python -m bench``."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

from rich.console import Console

from . import (
    cases_contention,
    cases_cycle,
    cases_endpoints,
    cases_free_threads,
    cases_import,
    cases_observing,
    cases_operations,
    cases_outage,
    cases_queue,
    cases_sizes,
    cases_sqlalchemy,
    cases_stale,
    interpreter,
    report,
)
from .measure import Result
from .runtimes import Runtime, all_runtimes
from .settings import FULL, QUICK, Settings

__all__ = ['main']

Case = Callable[[Runtime, Settings], Result]

_MIXTURES = [
    (workers, connections, hold) for workers, connections in ((32, 8), (100, 10)) for hold in (0.0, 1e-4, 1e-3)
]


_EPILOG = """
what the pool does besides acquire and release:
  -k two_tenants                      how long acquires wait at the total limit
  -k hot_endpoint                     how often the pool reconnects to one endpoint among many
  -k everything_on                    a cycle with every feature on, against every feature off
  -k outage                           64 waiters through an outage of 30 s
  -k stale                            the first acquire beside up to five stale connections
  -k at_rest                          wake-ups in a minute of an unused pool
  python -m bench.before DIRECTORY    a cycle, against another version of gcpool
  python -m bench.servers -k spike    50 requests at once on 5 connections, where connecting is slow
"""


def _cases(runtime: Runtime) -> dict[str, Case]:
    """Return the cases of a runtime by name, in the order of the table."""
    cases: dict[str, Case] = {
        'cycle': cases_cycle.cycle,
        'context_manager': cases_cycle.context_manager,
        'extra_connections': cases_cycle.extra_connections,
        'tuple_endpoint': cases_cycle.tuple_endpoint,
        'fresh_tuple_endpoint': cases_cycle.fresh_tuple_endpoint,
        'many_endpoints': cases_endpoints.many_endpoints,
        'create': cases_endpoints.create,
        'close': cases_endpoints.close,
        'memory': cases_endpoints.memory,
        'hot_endpoint': cases_sizes.hot_endpoint,
        'two_tenants': cases_sizes.two_tenants,
    }
    for workers, connections, hold in _MIXTURES:
        name = f'contention_{workers}_on_{connections}_hold_{hold * 1e6:.0f}us'
        cases[name] = functools.partial(
            cases_contention.contention, workers=workers, connections=connections, hold=hold
        )
    if runtime.name == 'threads':
        cases['two_threads'] = cases_free_threads.two_threads
        cases['sqlalchemy_checkout'] = cases_sqlalchemy.checkout
        cases['sqlalchemy_fairness'] = cases_sqlalchemy.fairness
    cases['import'] = cases_import.import_
    cases['everything_on'] = cases_operations.everything_on
    cases['record_holders'] = cases_observing.record_holders
    cases['outage'] = cases_outage.outage
    cases['stale_connections'] = cases_stale.stale_connections
    cases['at_rest'] = cases_operations.at_rest
    if runtime.name == 'asyncio':
        cases['queued_tasks'] = cases_queue.queued_tasks
        cases['cancelled_tasks'] = cases_queue.cancelled_tasks
    return {f'{runtime.name}.{name}': case for name, case in cases.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m bench',
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--quick', action='store_true', help='fewer and shorter rounds, smaller numbers')
    parser.add_argument('-k', metavar='WORD', default='', help='only the cases whose name contains WORD')
    parser.add_argument('--list', action='store_true', help='print the names of the cases and do nothing')
    interpreter.add_arguments(parser)
    parser.add_argument('--json', metavar='FILE', type=Path, help='write all figures to FILE, too')
    parser.add_argument(
        '--results',
        metavar='DIR',
        type=Path,
        default=Path(__file__).parent / 'results',
        help='where a run of all cases leaves its figures and its chart (default: %(default)s)',
    )
    options = parser.parse_args(arguments)
    status = interpreter.run_elsewhere(options, 'bench', sys.argv[1:] if arguments is None else arguments)
    if status is not None:
        return status
    settings = QUICK if options.quick else FULL
    progress = Console(stderr=True)
    # Wide enough for every line if there is no terminal to ask.
    out = Console() if sys.stdout.isatty() else Console(width=120)

    out.print(interpreter.describe(), highlight=False)
    with all_runtimes() as runtimes:
        chosen = [
            (name, functools.partial(case, runtime, settings))
            for runtime in runtimes
            for name, case in _cases(runtime).items()
            if options.k in name
        ]
        if options.list:
            out.print(*(name for name, _ in chosen), sep='\n')
            return 0
        if not chosen:
            parser.error(f'no case has {options.k!r} in its name; --list names them')
        results = []
        for number, (name, case) in enumerate(chosen, start=1):
            started = perf_counter()
            with progress.status(f'{number}/{len(chosen)} {name}'):
                results.append(case())
            progress.print(f'{number:2}/{len(chosen)} {name}: {perf_counter() - started:.1f} s', highlight=False)

    report.print_table(results, out)
    if options.json:
        report.write_json(results, settings, options.json)
    if not options.k:
        stem = options.results / ('quick' if options.quick else 'comparison')
        stem.parent.mkdir(parents=True, exist_ok=True)
        report.write_json(results, settings, stem.with_suffix('.json'))
        charts = report.draw_chart(results, stem)
        out.print('Written:', *(path.name for path in (stem.with_suffix('.json'), *charts)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
