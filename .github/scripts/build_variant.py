"""Makes another kind of build of gcpool, in a copy of the sources, so that none is taken for another.

    build_variant.py {assert,trace} DIRECTORY
    build_variant.py tsan DIRECTORY PYTHON

The build for ThreadSanitizer is for another interpreter (PYTHON), which was built for it, too. Cython runs here: under
ThreadSanitizer it would take minutes.

Afterwards DIRECTORY/src is what PYTHONPATH needs. The core is compiled only where its sources, the switches or the
interpreter are not those it was compiled with; Python files are always those of the checkout.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = {'assert': 'GCPOOL_ASSERT', 'trace': 'GCPOOL_TRACE'}
TSAN_FLAGS = ['-shared', '-fPIC', '-pthread', '-O1', '-g', '-fsanitize=thread', '-DCYTHON_WITHOUT_ASSERTIONS=1']
# What the compiler has to know of an interpreter, and whether that was built for ThreadSanitizer and without the GIL.
DESCRIBE = """
import json, sys, sysconfig
answer = {name: sysconfig.get_config_var(name) for name in ('CC', 'EXT_SUFFIX', 'CONFIG_ARGS', 'Py_GIL_DISABLED')}
answer['version'] = sys.version
answer['include'] = sorted({sysconfig.get_path(name) for name in ('include', 'platinclude')})
print(json.dumps(answer))
"""
BUILD_FILES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE')
SOURCE_SUFFIXES = {'.py', '.pyi', '.pyx', '.pxi', '.pxd', '.typed'}
CORE_SUFFIXES = {'.pyx', '.pxi', '.pxd'}


def sources() -> list[Path]:
    """List what a build is made from, relative to the root of the repository."""
    package = [path for path in (ROOT / 'src').rglob('*') if path.suffix in SOURCE_SUFFIXES]
    return sorted(path.relative_to(ROOT) for path in package) + [Path(name) for name in BUILD_FILES]


def fingerprint(variant: str, files: list[Path], other: dict[str, Any]) -> str:
    """Sum up all that the compiled core depends on."""
    digest = hashlib.sha256(f'{variant}\n{sys.executable}\n{sys.version}\n{TSAN_FLAGS}\n{other}\n'.encode())
    for path in files:
        if path.suffix in CORE_SUFFIXES or path.name == 'setup.py':
            digest.update(path.as_posix().encode() + b'\n' + (ROOT / path).read_bytes())
    return digest.hexdigest()


def copy(files: list[Path], directory: Path) -> None:
    """Make the sources in the directory those of the checkout; what was compiled there stays."""
    wanted = {directory / path for path in files}
    for path in directory.glob('src/**/*'):
        if path.suffix in SOURCE_SUFFIXES and path not in wanted:
            path.unlink()
    for path in files:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)


def describe(python: str) -> dict[str, Any]:
    """Ask an interpreter what DESCRIBE says. SystemExit if it is not one for ThreadSanitizer."""
    try:
        answer = subprocess.run([python, '-I', '-c', DESCRIBE], stdout=subprocess.PIPE, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        raise SystemExit(f'TSAN_PYTHON={python}: expected an interpreter: {exc}') from exc
    described: dict[str, Any] = json.loads(answer)
    configured = described['CONFIG_ARGS'] or 'nothing'
    if '--with-thread-sanitizer' not in configured or not described['Py_GIL_DISABLED']:
        raise SystemExit(
            f'TSAN_PYTHON={python}: expected a CPython that was configured with --disable-gil --with-thread-sanitizer, '
            f'this one was with: {configured}'
        )
    return described


def compile_for_tsan(directory: Path, other: dict[str, Any]) -> None:
    """Compile the core for another interpreter and ThreadSanitizer, with the compiler of that interpreter."""
    core = Path('src/gcpool/_core.c')
    subprocess.run([sys.executable, '-m', 'cython', '-3', core.with_suffix('.pyx')], cwd=directory, check=True)
    target = core.with_name(f'_core{other["EXT_SUFFIX"]}')
    include = [f'-I{path}' for path in other['include']]
    command: list[str | Path] = [*shlex.split(other['CC']), *TSAN_FLAGS, *include, core, '-o', target]
    subprocess.run(command, cwd=directory, check=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('variant', choices=[*SWITCHES, 'tsan'])
    parser.add_argument('directory', type=Path)
    parser.add_argument('python', nargs='?')
    options = parser.parse_args()
    directory: Path = options.directory.resolve()
    if (options.variant == 'tsan') != bool(options.python):
        parser.error('PYTHON is for tsan, and needed there')

    other = describe(options.python) if options.python else {}
    files = sources()
    expected = fingerprint(options.variant, files, other)
    stamp = directory / 'fingerprint'
    current = stamp.exists() and stamp.read_text(encoding='utf-8') == expected
    if not current:
        shutil.rmtree(directory, ignore_errors=True)
    copy(files, directory)
    if not current and options.variant == 'tsan':
        compile_for_tsan(directory, other)
    elif not current:
        environment = {name: value for name, value in os.environ.items() if name not in SWITCHES.values()}
        environment[SWITCHES[options.variant]] = '1'
        command = [sys.executable, 'setup.py', '--quiet', 'build_ext', '--inplace']
        subprocess.run(command, cwd=directory, env=environment, check=True)
    if not current:
        stamp.write_text(expected, encoding='utf-8')


if __name__ == '__main__':
    main()
