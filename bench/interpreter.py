"""Which CPython the benchmarks run on: the newest installed one, regardless of the one that started them."""

import argparse
import functools
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Interpreter', 'add_arguments', 'describe', 'interpreters', 'newest', 'run_elsewhere']

ROOT = Path(__file__).resolve().parents[1]

#: Run by each interpreter that is found.
_ASK = """
import json, os, sys, sysconfig
print(json.dumps({
    'path': os.path.realpath(sys.executable),
    'version': sys.version_info[:3],
    'final': sys.version_info.releaselevel == 'final' and sys.implementation.name == 'cpython',
    'free_threaded': bool(sysconfig.get_config_var('Py_GIL_DISABLED')),
    'optimised': '-fprofile-use' in (sysconfig.get_config_var('PY_CORE_CFLAGS') or ''),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """An interpreter, as it describes itself."""

    path: str
    version: tuple[int, int, int]
    final: bool
    free_threaded: bool
    #: known to be built with profile-guided optimisation; not every build reports it
    optimised: bool

    def __str__(self) -> str:
        number = '.'.join(map(str, self.version))
        threads = ', free-threaded' if self.free_threaded else ''
        return f'CPython {number}{threads}{", built with PGO" if self.optimised else ""}'


def ask(path: str | Path) -> Interpreter | None:
    """Ask an interpreter to describe itself; None if it does not answer."""
    try:
        answer = subprocess.run([path, '-I', '-c', _ASK], capture_output=True, text=True, check=True, timeout=60).stdout
        found = json.loads(answer)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(**{**found, 'version': tuple(found['version'])})


def interpreters() -> list[Interpreter]:
    """Find the interpreters on PATH and those that pyenv has installed."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get('PYENV_ROOT') or Path.home() / '.pyenv')
    folders += sorted(pyenv.glob('versions/*/bin'))
    names = [f'python3.{minor}' for minor in range(10, 30)]
    paths = {str((folder / name).resolve()) for folder in folders for name in names if (folder / name).is_file()}
    return [found for path in sorted(paths) if (found := ask(path)) is not None]


def newest(found: Iterable[Interpreter]) -> Interpreter | None:
    """Choose what most users will install next: the newest final CPython with the GIL; the optimised one of two."""
    candidates = [interpreter for interpreter in found if interpreter.final and not interpreter.free_threaded]
    return max(candidates, key=lambda interpreter: (interpreter.version, interpreter.optimised), default=None)


@functools.cache
def describe() -> str:
    """Describe the interpreter that runs this."""
    here = ask(sys.executable)
    assert here is not None
    return f'{here}, {sysconfig.get_platform()}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose an interpreter."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--here', action='store_true', help='run on this Python, not on the newest installed CPython')
    where.add_argument('--python', metavar='PATH', help='run on that Python')


def run_elsewhere(options: argparse.Namespace, module: str, arguments: Sequence[str]) -> int | None:
    """Run a module on the requested interpreter, or else on the newest, unless that is this one.

    :param options: the result of the parser of :py:func:`add_arguments`
    :param arguments: the arguments of the command line
    :return: the exit status; None if the module must run here
    """
    if options.here or options.list:
        return None
    here = ask(sys.executable)
    if options.python:
        chosen = ask(options.python)
        if chosen is None:
            raise SystemExit(f'--python {options.python}: no Python answers there')
        place = list(arguments).index('--python') if '--python' in arguments else None
        # Written as --python=PATH it is one argument.
        arguments = [
            argument
            for index, argument in enumerate(arguments)
            if not argument.startswith('--python') and (place is None or index != place + 1)
        ]
    else:
        chosen = newest(interpreters())
    if chosen is None or here is None or (not options.python and chosen.version <= here.version):
        return None
    return _run_on(chosen, module, arguments)


def _run_on(interpreter: Interpreter, module: str, arguments: Sequence[str]) -> int:
    """Run a module of the checkout on an interpreter, in an environment that is created the first time.

    :return: the exit status
    :raises SystemExit: when the environment cannot be created
    """
    suffix = '.'.join(map(str, interpreter.version)) + 't' * interpreter.free_threaded
    venv = ROOT / f'.venv-bench-{suffix}'
    group = 'bench' + '-free-threaded' * interpreter.free_threaded
    variables = [f'PYTHON={interpreter.path}', f'VENV={venv.name}', f'BENCH_GROUP={group}']
    command = ['make', '--silent', 'bench-environment', *variables]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(f'the environment for {interpreter} could not be made; --here runs on {describe()}')
    python = venv / 'bin' / 'python'
    return subprocess.run([python, '-m', module, *arguments, '--here'], check=False).returncode
