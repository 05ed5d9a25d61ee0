"""Prints the further Pythons that the tests are run on as installed, one a line: the version, a space, the program.

    further_pythons.py [DIRECTORY...]

They are looked for in the directories, or else in those of PATH, in those of pyenv's versions and where systems have
theirs. Printed are the newest, the newest free-threaded one and the oldest, in this order, as far as there are any; not
the one that runs this. 3.14 and 3.14t are different versions.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

NAME = re.compile(r'python3(\.\d+t?)?')

# What gcpool is built with and its tests are run in: a compiler finds Python.h, and there is venv.
QUESTION = """
import ensurepip, os, sys, sysconfig, venv
if os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
    print(*sys.version_info[:2], int(bool(sysconfig.get_config_var('Py_GIL_DISABLED'))), sys.executable)
"""


class Python(NamedTuple):
    """An interpreter, in order of the versions."""

    minor: int
    free_threaded: bool
    program: Path

    @property
    def version(self) -> str:
        """The version as it is spelt in the names of programs."""
        return f'3.{self.minor}{"t" if self.free_threaded else ""}'


def directories() -> Iterator[Path]:
    """Where to look."""
    yield from map(Path, os.get_exec_path())
    yield from sorted(Path.home().glob('.pyenv/versions/*/bin'))
    yield from (Path('/usr/local/bin'), Path('/usr/bin'))


def ask(program: Path) -> Python | None:
    """Find out what an interpreter is.

    :return: None if it is none that gcpool can be tested with
    """
    try:
        asked = subprocess.run([program, '-c', QUESTION], capture_output=True, text=True, timeout=60, check=False)
        major, minor, free_threaded, executable = asked.stdout.rstrip('\n').split(' ', 3)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    if major != '3' or int(minor) < 10:
        return None
    return Python(int(minor), free_threaded == '1', Path(executable))


def find(places: Iterable[Path]) -> list[Python]:
    """Find one interpreter of each version, the first, in order of their versions.

    :param places: directories, which need not exist
    """
    found: dict[str, Python] = {}
    for directory in dict.fromkeys(places):
        programs = sorted(directory.iterdir()) if directory.is_dir() else []
        for program in programs:
            python = ask(program) if NAME.fullmatch(program.name) else None
            if python is not None:
                found.setdefault(python.version, python)
    return sorted(found.values())


def choose(found: Iterable[Python], own: str) -> list[Python]:
    """Choose those that are tested.

    :param found: in order of their versions
    :param own: the version that all else is run with
    """
    further = [python for python in found if python.version != own]
    with_gil = [python for python in further if not python.free_threaded]
    free_threaded = [python for python in further if python.free_threaded]
    return list(dict.fromkeys([*with_gil[-1:], *free_threaded[-1:], *with_gil[:1]]))


def main(arguments: list[str]) -> None:
    """Run the command line."""
    own = Python(sys.version_info.minor, bool(sysconfig.get_config_var('Py_GIL_DISABLED')), Path(sys.executable))
    for python in choose(find(map(Path, arguments) if arguments else directories()), own.version):
        print(python.version, python.program)


if __name__ == '__main__':
    main(sys.argv[1:])
