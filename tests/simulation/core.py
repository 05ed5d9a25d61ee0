"""The core alone, asked random questions in lock-step with a naive model.

    python -m tests.simulation.core SEED STEPS

The driver and the model are compiled (``_core_lockstep.pyx``, ``_core_model.pxi``, ``_core_growth.pxi``): in Python
they would be a hundred times slower than the core.
"""

import argparse
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from gcpool._core import PoolCore
from tests.simulation import compiled


def load() -> ModuleType:
    """Import the driver; compile it before if need be.

    :raises tests.simulation.compiled.CannotCompile: what that takes is not installed
    """
    return compiled.extension('_core_lockstep', '_core_model.pxi', '_core_growth.pxi')


def simulate(seed: int, steps: int, make_core: Callable[..., Any] = PoolCore) -> str:
    """Ask the core random questions, and compare each answer with the model's.

    :param seed: decides on everything that is random
    :param steps: how many questions; beyond them each pool that was begun is brought to its end
    :param make_core: what is called as PoolCore is
    :return: the hash of all questions and answers: the same for the same seed and steps
    :raises tests.simulation.failure.SimulationError: the core and the model differ
    :raises tests.simulation.compiled.CannotCompile: what it takes to compile the driver is not installed
    """
    trace: str = load().simulate(seed, steps, make_core)
    return trace


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog='python -m tests.simulation.core', description='Simulate the core alone.')
    parser.add_argument('seed', type=int)
    parser.add_argument('steps', type=int)
    options = parser.parse_args()
    load()
    begin = time.process_time()
    trace = simulate(options.seed, options.steps)
    rate = options.steps / (time.process_time() - begin)
    print(f'seed {options.seed}, {options.steps} steps: {trace}; {rate:,.0f} steps in a second of CPU time')


if __name__ == '__main__':
    main()
