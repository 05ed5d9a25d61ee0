"""What the simulator is worth: it has to find each of the small wrong changes in ``wrong_changes.py``.

    python -m tests.simulation.mutants [NAME ...] [--jobs N] [--steps N] [--seed N]

Each change is made in a copy of the sources in build/mutants, which the simulators that have to find it then run on.
The core is compiled only for a change in compiled code, without optimization, and once for the same sources. First
the simulators run on the sources as they are: a simulator that finds fault with those would find any change.

What counts is how a simulator ends: with a broken rule, a crash, an error of any kind, or not at all (a hang).
Exit code 1: a change was missed. Exit code 2: the unchanged sources do not pass, or a change cannot be made.
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import gcpool._core
from tests.simulation.wrong_changes import WRONG_CHANGES, WrongChange

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / 'build' / 'mutants'
SIMULATORS = ('core', 'growth', 'asyncio', 'threads')

# A run that takes this many times as long as it does on the unchanged sources is taken to hang.
HANG_FACTOR = 10
LEAST_LIMIT = 60.0
LONGEST = 3600.0

BROKEN_RULE = re.compile(r'seed (?P<seed>\d+), step (?P<step>\d+): (?P<rule>.*)')
UNCHANGED = WrongChange('(unchanged)', SIMULATORS, '', '', 'nothing')


def load_script(name: str) -> ModuleType:
    """Import a script of the repository's own."""
    spec = importlib.util.spec_from_file_location(name, ROOT / '.github' / 'scripts' / f'{name}.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


variant = load_script('build_variant')
generator = load_script('generate_threading')


class NotPossible(Exception):
    """A change cannot be made, or there is nothing to run on what it makes."""


@dataclass(frozen=True)
class Verdict:
    """How one run of a simulator ended.

    :param fault: what it found, in a few words; None if it found nothing
    :param place: the seed and the step at which it found that, if it said so. A simulator may give each world of a run
        a seed of its own, and count the steps of that
    :param text: the rule that was broken, or the last line that the simulator wrote
    """

    fault: str | None
    place: str
    seconds: float
    text: str


# -- making the changes -----------------------------------------------------------------------------------------------


def find(change: WrongChange) -> Path:
    """Find the one file that has the text of a change, relative to the root. What is generated does not count."""
    generated = set(generator.PACKAGE.values())
    counts: dict[Path, int] = {}
    for path in variant.sources():
        if path.parts[0] == 'src' and path.suffix != '.typed' and path not in generated:
            counts[path] = (ROOT / path).read_text(encoding='utf-8').count(change.old)
    found = [path for path, count in counts.items() if count]
    if sum(counts.values()) != 1:
        places = ', '.join(f'{counts[path]} in {path.as_posix()}' for path in found) or 'nowhere'
        raise NotPossible(f'{change.name}: its text has to stand once in the sources, and stands: {places}')
    return found[0]


def edit(path: Path, old: str, new: str) -> None:
    """Replace the one occurrence of a text."""
    text = path.read_text(encoding='utf-8')
    if text.count(old) != 1:
        raise NotPossible(f'{path}: {old!r} has to stand there once')
    path.write_text(text.replace(old, new), encoding='utf-8', newline='\n')


def prepare(change: WrongChange) -> Path:
    """Make the copy that has the change, and compile it where it is in compiled code.

    :return: what PYTHONPATH needs
    """
    directory = DIRECTORY / change.name.strip('()')
    files = variant.sources()
    path = None if change is UNCHANGED else find(change)
    compiled = path is not None and path.suffix in variant.CORE_SUFFIXES
    stamp = directory / 'fingerprint'
    expected = variant.fingerprint(f'{change.old}\n{change.new}', files, {})
    current = compiled and stamp.exists() and stamp.read_text(encoding='utf-8') == expected
    if not current:
        shutil.rmtree(directory, ignore_errors=True)
    variant.copy(files, directory)
    if path is not None:
        edit(directory / path, change.old, change.new)
        if path in generator.PACKAGE:
            target = generator.PACKAGE[path]
            (directory / target).write_text(generator.generate(directory, path, target), encoding='utf-8', newline='\n')
    if not compiled:
        shutil.copy2(gcpool._core.__file__, directory / 'src' / 'gcpool')
    elif not current:
        compile_core(directory)
        stamp.write_text(expected, encoding='utf-8')
    return check_import(directory / 'src')


def compile_core(directory: Path) -> None:
    """Compile the core in the copy. The flags of setup.py come after CFLAGS, so its text is changed."""
    edit(directory / 'setup.py', "['-O3', '-g0']", "['-O0']")
    environment = {name: value for name, value in os.environ.items() if name not in variant.SWITCHES.values()}
    command = [sys.executable, 'setup.py', '--quiet', 'build_ext', '--inplace']
    built = subprocess.run(command, cwd=directory, env=environment, capture_output=True, encoding='utf-8', check=False)
    if built.returncode:
        raise NotPossible(f'{directory.name} cannot be compiled:\n{built.stdout}{built.stderr}')


def check_import(source: Path) -> Path:
    """Refuse a copy that cannot be imported, or that another gcpool comes before: nothing would be found in it."""
    program = 'import gcpool._core, gcpool.asyncio, gcpool.threading; print(gcpool._core.__file__)'
    command = [sys.executable, '-c', program]
    result = subprocess.run(
        command, cwd=ROOT, env=environment_of(source), capture_output=True, encoding='utf-8', check=False
    )
    if result.returncode or not Path(result.stdout.strip()).is_relative_to(source):
        raise NotPossible(f'{source} is not what is imported: {result.stdout}{result.stderr}')
    return source


# -- running the simulators -------------------------------------------------------------------------------------------


def environment_of(source: Path) -> dict[str, str]:
    """The environment of a process that uses the gcpool of a copy."""
    return {**os.environ, 'PYTHONPATH': str(source)}


def watch(command: list[str], source: Path, limit: float) -> Verdict:
    """Run a command that simulates, and tell how that ended.

    :param limit: seconds after which it is taken to hang, and is killed
    """
    begin = time.monotonic()
    try:
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=environment_of(source),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding='utf-8',
            errors='replace',
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict('hang', '', time.monotonic() - begin, f'no end within {limit:.0f} s')
    taken = time.monotonic() - begin
    last = next((line for line in reversed(result.stdout.splitlines()) if line.strip()), '')
    rule = BROKEN_RULE.search(result.stdout)
    if result.returncode < 0:
        return Verdict(f'crash, {signal.Signals(-result.returncode).name}', '', taken, last)
    if result.returncode == 0:
        return Verdict(None, '', taken, last)
    if rule is None:
        return Verdict('error', '', taken, last)
    return Verdict('rule', f'{rule["seed"]}: {int(rule["step"]):,}', taken, rule['rule'])


def simulate(simulator: str, source: Path, seed: int, steps: int, limit: float) -> Verdict:
    """Run one simulator on a copy. Not by its command line, which also shrinks the run that has failed."""
    program = f'from tests.simulation.__main__ import module_of; module_of({simulator!r}).simulate({seed}, {steps})'
    return watch([sys.executable, '-c', program], source, limit)


def judge(change: WrongChange, seed: int, steps: int, limits: dict[str, float]) -> dict[str, Verdict]:
    """Run the simulators that have to find a change."""
    source = prepare(change)
    return {name: simulate(name, source, seed, steps, limits.get(name, LEAST_LIMIT)) for name in change.found_by}


# -- the command line -------------------------------------------------------------------------------------------------


def row(name: str, simulator: str, verdict: Verdict) -> str:
    """A line of the table."""
    fault = verdict.fault or 'nothing'
    return f'{name:40} {simulator:8} {fault:14} {verdict.place:>14} {verdict.seconds:7.1f}  {verdict.text[:100]}'


def run(changes: list[WrongChange], seed: int, steps: int, jobs: int) -> int:
    """Judge changes, print the table.

    :return: the exit code
    """
    for change in changes:
        find(change)  # before anything is compiled
    print(f'{"change":40} {"by":8} {"found":14} {"seed: step":>14} {"seconds":>7}')
    executor = ThreadPoolExecutor(jobs)
    try:
        limits = measure_unchanged(executor, changes, seed, steps)
        if not limits:
            print('The unchanged sources do not pass: nothing that is found says anything.')
            return 2
        verdicts = [executor.submit(judge, change, seed, steps, limits) for change in changes]
        missed, impossible = print_verdicts(changes, verdicts)
    finally:
        executor.shutdown(cancel_futures=True)
    print(f'{len(changes)} changes, seed {seed}, {steps:,} steps: ', end='')
    if impossible:
        print('these cannot be made: ' + ', '.join(change.name for change in impossible))
    if missed:
        print('these were missed:')
        for change, name in missed:
            print(f'  {change.name} by {name}: {change.harm}')
    elif not impossible:
        print('all of them were found.')
    return 2 if impossible else int(bool(missed))


def print_verdicts(
    changes: list[WrongChange], verdicts: 'list[Future[dict[str, Verdict]]]'
) -> tuple[list[tuple[WrongChange, str]], list[WrongChange]]:
    """Print the lines of the table, one after the other.

    :return: the changes that were missed, with the simulators that missed them; and those that cannot be made. The
        others are judged all the same, because that may take an hour
    """
    missed, impossible = [], []
    for change, future in zip(changes, verdicts, strict=True):
        try:
            found = future.result()
        except NotPossible as error:
            print(error, flush=True)
            impossible.append(change)
            continue
        for name, verdict in found.items():
            print(row(change.name, name, verdict), flush=True)
            if verdict.fault is None:
                missed.append((change, name))
    return missed, impossible


def measure_unchanged(
    executor: ThreadPoolExecutor, changes: list[WrongChange], seed: int, steps: int
) -> dict[str, float]:
    """Run the simulators on the sources as they are.

    :return: by simulator the seconds after which a run hangs; nothing if a simulator finds fault
    """
    source = prepare(UNCHANGED)
    names = [name for name in SIMULATORS if any(name in change.found_by for change in changes)]
    limits = {}
    faulty = False
    verdicts = executor.map(lambda name: simulate(name, source, seed, steps, LONGEST), names)
    for name, verdict in zip(names, verdicts, strict=True):
        print(row(UNCHANGED.name, name, verdict), flush=True)
        limits[name] = max(LEAST_LIMIT, HANG_FACTOR * verdict.seconds)
        faulty = faulty or verdict.fault is not None
    return {} if faulty else limits


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help='of changes; all if none is given')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='how many at a time')
    parser.add_argument('--steps', type=int, default=1_000_000, help='within which each simulator has to find a change')
    parser.add_argument('--seed', type=int, default=1, help='of the simulators')
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {change.name for change in WRONG_CHANGES}
    if unknown:
        parser.error(f'no such changes: {", ".join(sorted(unknown))}')
    changes = [change for change in WRONG_CHANGES if not options.names or change.name in options.names]
    try:
        return run(changes, options.seed, options.steps, options.jobs)
    except NotPossible as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
