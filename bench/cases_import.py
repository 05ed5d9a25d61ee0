"""What it costs a program to import a pool."""

import os
import subprocess
import sys
from time import perf_counter_ns

from .measure import Figure, Goal, Result, Timed, interleave, ratios
from .runtimes import Runtime
from .settings import Settings

__all__ = ['import_']

_MODULES = {
    'threads': (
        *('gcpool.threading', 'generic_connection_pool.threading', 'sqlalchemy.pool'),
        *('gcpool.psycopg_pool', 'psycopg_pool'),
    ),
    'asyncio': ('gcpool.asyncio', 'generic_connection_pool.asyncio', 'psycopg_pool'),
}
_GOAL = {'threads': Goal('<=', 25)}


def import_(runtime: Runtime, settings: Settings) -> Result:
    """Start interpreters that import a module, and as many that import nothing."""
    result = Result(f'{runtime.name}: import', unit='ns')
    bare = 'a bare interpreter'
    programs = {bare: 'pass'}
    for module in _MODULES[runtime.name]:
        if _run(f'import {module}') == 0:
            programs[module] = f'import {module}'
        else:
            result.missing[module] = 'it cannot be imported'
    result.samples = interleave({name: (_timed(text), 1) for name, text in programs.items()}, settings.rounds)
    floor = result.samples[bare]
    own, original = 'gcpool.psycopg_pool', 'psycopg_pool'
    if own in programs and original in programs:
        figure = ratios(result.samples[own], result.samples[original])
        result.figures.append(Figure(f'import {own}, in that of {original}', figure, goal=Goal('<=', 1.0)))
    for module in programs:
        if module != bare:
            above = [(own - least) / 1e6 for own, least in zip(result.samples[module], floor, strict=True)]
            goal = _GOAL.get(runtime.name) if module == 'gcpool.threading' else None
            result.figures.append(Figure(f'import {module}, above a bare interpreter', above, unit=' ms', goal=goal))
    return result


def _run(program: str) -> int:
    # The imported modules are compiled only the first time, as for users. The child finds what this process found.
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    environment.pop('PYTHONDONTWRITEBYTECODE', None)
    command = [sys.executable, '-c', program]
    return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False, timeout=60).returncode


def _timed(program: str) -> Timed:
    def run(number: int) -> int:
        started = perf_counter_ns()
        for _ in range(number):
            _run(program)
        return perf_counter_ns() - started

    return run
