"""Extensions that only the tests need, compiled when they are first asked for.

They are built into ``build/simulation/``, in a directory for each state of their sources and each interpreter, and
are no part of what is published.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

DIRECTORY = Path(__file__).resolve().parent
BUILD = DIRECTORY.parents[1] / 'build' / 'simulation'

# Seconds within which the compiler has to be done, on whatever machine.
PATIENCE = 600


class CannotCompile(Exception):
    """What it takes to compile an extension is not installed."""


def what_is_missing() -> str | None:
    """Name what it takes to compile an extension and is not there."""
    for name in ('Cython', 'setuptools'):
        if importlib.util.find_spec(name) is None:
            return name
    if not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        return 'Python.h'
    compiler = os.environ.get('CC') or sysconfig.get_config_var('CC')
    # On Windows setuptools finds the compiler in the registry, and says so if there is none.
    if sys.platform != 'win32' and (not compiler or shutil.which(compiler.split()[0]) is None):
        return 'a C compiler'
    return None


def fingerprint(sources: Iterable[Path]) -> str:
    """Sum up what a compiled extension depends on."""
    digest = hashlib.sha256(f'{sys.executable}\n{sys.version}\n'.encode())
    for source in sources:
        digest.update(source.name.encode() + b'\n' + source.read_bytes())
    return digest.hexdigest()[:16]


def compile_into(directory: Path, name: str, sources: list[Path]) -> None:
    """Compile in a directory of its own, and put that in place whole: several processes may be at it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as made:
        work = Path(made) / 'work'
        work.mkdir()
        for source in sources:
            shutil.copy2(source, work)
        command = [sys.executable, '-m', 'Cython.Build.Cythonize', '--inplace', '--quiet', f'{name}.pyx']
        done = subprocess.run(
            command, cwd=work, capture_output=True, text=True, errors='replace', check=False, timeout=PATIENCE
        )
        if done.returncode:
            raise RuntimeError(f'{name} does not compile:\n{done.stdout}{done.stderr}')
        try:
            work.rename(directory)
        except OSError:
            if not directory.exists():  # else another process was faster
                raise


@functools.cache
def extension(name: str, *parts: str) -> ModuleType:
    """Import an extension from this directory; compile it before if need be.

    :param name: of the .pyx file, without that
    :param parts: the files that it includes
    :raises CannotCompile: what that takes is not installed
    """
    sources = [DIRECTORY / f'{name}.pyx', *(DIRECTORY / part for part in parts)]
    directory = BUILD / f'{name}-{fingerprint(sources)}'
    if not directory.exists():
        missing = what_is_missing()
        if missing is not None:
            raise CannotCompile(f'{missing} is not installed')
        compile_into(directory, name, sources)
    path = directory / f'{name}{sysconfig.get_config_var("EXT_SUFFIX")}'
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
