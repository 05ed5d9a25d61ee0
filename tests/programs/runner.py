"""Runs programs of the tests in processes of their own, where they may do with signals, forks and the main thread what
they like."""

import subprocess
import sys

import pytest

from tests.support import PATIENCE, program_environment


def run_program(module: str, name: str, *arguments: object) -> None:
    """Run a function of a module beside this one, warnings being errors. It says nothing, or it has failed.

    :param module: name of the module
    :param name: name of the function
    :param arguments: what it is called with; each one's repr() has to be Python
    """
    call = f'{name}({", ".join(map(repr, arguments))})'
    finished = subprocess.run(
        [
            *(sys.executable, '-W', 'error', '-X', 'faulthandler', '-c'),
            f'from tests.programs.{module} import {name}; {call}; print("done")',
        ],
        env=program_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    if (finished.returncode, finished.stdout) != (0, 'done\n'):
        pytest.fail(f'{call} ended with {finished.returncode} and said:\n{finished.stdout}', pytrace=False)
