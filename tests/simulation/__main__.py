"""Runs the simulator.

    python -m tests.simulation {core,growth,asyncio,threads,all} [--seed N] [--steps N] [--seconds S] [--fixed S]
                               [--without FAULTS]

Without a seed one is drawn, and printed. A run that breaks a rule is repeated with fewer steps and without each of its
faults, and what is left is printed as a command.
"""

import argparse
import importlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.simulation.failure import SimulationError
from tests.simulation.world import FAULTS

MODULES = {'core': 'core', 'growth': 'growth', 'asyncio': 'tasks', 'threads': 'threads'}

# How many steps are run between two looks at the time.
SLICE = 20_000
STEPS = 1_000_000

# What --fixed runs: this seed, and for each second the steps that one takes on a quiet machine. A run that has passed
# passes again on any machine.
FIXED_SEED = 2
STEPS_A_SECOND = {'core': 450_000, 'growth': 120_000, 'asyncio': 110_000, 'threads': 105_000}

# Seconds that shrinking may take.
SHRINK_TIME = 60.0


def module_of(part: str) -> Any:
    """Import one part. Each needs packages of its own."""
    return importlib.import_module(f'tests.simulation.{MODULES[part]}')


def commit() -> str:
    """Where this is a checkout: which commit, and whether files were changed since."""
    try:
        done = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=12'],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return 'no commit'
    return f'commit {done.stdout.strip()}'


def fails(part: str, seed: int, steps: int, without: tuple[str, ...]) -> SimulationError | None:
    """Run one world of a seed."""
    try:
        module_of(part).simulate_world(seed, steps, without)
    except SimulationError as failure:
        return failure
    return None


def shrink(
    part: str, failure: SimulationError, without: tuple[str, ...]
) -> tuple[SimulationError, int, tuple[str, ...]]:
    """Find a smaller run of the same seed that breaks a rule.

    :return: how it fails, of how many steps it is, and the faults that are switched off. What is broken after the
        faults have stopped is broken after more steps than those
    """
    end = time.monotonic() + SHRINK_TIME
    steps = steps_until(failure)
    for fault in FAULTS:
        if fault not in without and time.monotonic() < end:
            smaller = fails(part, failure.seed, steps, (*without, fault))
            if smaller is not None:
                failure, without = smaller, (*without, fault)
                steps = min(steps, steps_until(smaller))
    for divisor in (2, 4, 8, 16):
        # As long as it fails with fewer steps of traffic.
        while time.monotonic() < end:
            fewer = steps - steps // divisor
            smaller = fails(part, failure.seed, fewer, without)
            if smaller is None or smaller.step >= failure.step:
                break
            failure = smaller
            steps = min(fewer, steps_until(smaller))
    return failure, steps, without


def steps_until(failure: SimulationError) -> int:
    """Of how many steps a run has to be that fails in the same way, before its faults stop."""
    return failure.step + 1


def command(part: str, seed: int, steps: int, without: tuple[str, ...]) -> str:
    """What repeats a run."""
    rest = f' --without {",".join(without)}' if without else ''
    return f'python -m tests.simulation {part} --seed {seed} --steps {steps}{rest}'


def report(part: str, failure: SimulationError, without: tuple[str, ...]) -> None:
    """Say how a run failed, and how a smaller one does."""
    print(f'{part}: {failure} ({commit()})')
    print(f'  repeat: {command(part, failure.seed, steps_until(failure), without)}')
    if not hasattr(module_of(part), 'simulate_world'):
        return
    print('  shrinking ...', flush=True)
    smaller, steps, less = shrink(part, failure, without)
    print(f'  {smaller}\n  repeat: {command(part, smaller.seed, steps, less)}')


def run(part: str, seed: int, steps: int, seconds: float | None, without: tuple[str, ...]) -> bool:
    """Run one part until the steps are made, or the time is over. Whether no rule was broken."""
    print(f'{part}: seed {seed}', flush=True)
    simulate = module_of(part).simulate
    options: dict[str, Any] = {'without': without} if without else {}
    began = time.monotonic()
    busy = time.process_time()
    done = 0
    try:
        if seconds is None:
            trace = simulate(seed, steps, **options)
            done = steps
        else:
            # Seeds that follow one another are worlds that follow one another: these are far apart.
            trace = ''
            while time.monotonic() < began + seconds:
                trace = simulate(seed + done * 1000, SLICE, **options)
                done += SLICE
    except SimulationError as failure:
        report(part, failure, without)
        return False
    busy = max(time.process_time() - busy, 1e-9)
    print(f'{part}: {done} steps, {done / busy:.0f} a second of processor time, trace {trace}')
    return True


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m tests.simulation', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('part', choices=[*MODULES, 'all'])
    parser.add_argument('--seed', type=int, help='by default one is drawn')
    parser.add_argument('--steps', type=int, help=f'by default {STEPS}')
    parser.add_argument('--seconds', type=float, help='instead of steps: for each part')
    parser.add_argument(
        '--fixed',
        type=float,
        metavar='SECONDS',
        help='the same seed and steps on every machine, as many steps as usually take so long: for each part',
    )
    parser.add_argument('--without', default='', help='faults that do not happen, separated by commas')
    options = parser.parse_args()
    if [options.steps, options.seconds, options.fixed].count(None) < 2:
        parser.error('--steps, --seconds and --fixed: expected one of them')
    if options.seed is not None and options.fixed is not None:
        parser.error(f'--seed and --fixed: expected one of them; --fixed is for seed {FIXED_SEED}')
    without = tuple(name for name in options.without.split(',') if name)
    if unknown := set(without) - set(FAULTS):
        parser.error(f'--without {",".join(sorted(unknown))}: expected some of {", ".join(FAULTS)}')
    seed = random.SystemRandom().getrandbits(48) if options.seed is None else options.seed
    parts = list(MODULES) if options.part == 'all' else [options.part]
    passed = True
    for part in parts:
        steps = options.steps or STEPS
        if options.fixed is not None:
            seed, steps = FIXED_SEED, round(STEPS_A_SECOND[part] * options.fixed)
        passed = run(part, seed, steps, options.seconds, without) and passed
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
