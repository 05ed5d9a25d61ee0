"""Makes another kind of build of gcpool, in a copy of the sources, so that none is taken for another.

    build_variant.py {assert,trace} DIRECTORY

Afterwards DIRECTORY/src is what PYTHONPATH needs. The core is compiled only where its sources, the switches or the
interpreter are not those it was compiled with; Python files are always those of the checkout.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = {'assert': 'GCPOOL_ASSERT', 'trace': 'GCPOOL_TRACE'}
BUILD_FILES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE')
SOURCE_SUFFIXES = {'.py', '.pyi', '.pyx', '.pxi', '.pxd', '.typed'}
CORE_SUFFIXES = {'.pyx', '.pxi', '.pxd'}


def sources() -> list[Path]:
    """List what a build is made from, relative to the root of the repository."""
    package = [path for path in (ROOT / 'src').rglob('*') if path.suffix in SOURCE_SUFFIXES]
    return sorted(path.relative_to(ROOT) for path in package) + [Path(name) for name in BUILD_FILES]


def fingerprint(variant: str, files: list[Path]) -> str:
    """Sum up all that the compiled core depends on."""
    digest = hashlib.sha256(f'{variant}\n{sys.executable}\n{sys.version}\n'.encode())
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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('variant', choices=SWITCHES)
    parser.add_argument('directory', type=Path)
    options = parser.parse_args()
    directory: Path = options.directory.resolve()

    files = sources()
    expected = fingerprint(options.variant, files)
    stamp = directory / 'fingerprint'
    current = stamp.exists() and stamp.read_text(encoding='utf-8') == expected
    if not current:
        shutil.rmtree(directory, ignore_errors=True)
    copy(files, directory)
    if not current:
        environment = {name: value for name, value in os.environ.items() if name not in SWITCHES.values()}
        environment[SWITCHES[options.variant]] = '1'
        command = [sys.executable, 'setup.py', '--quiet', 'build_ext', '--inplace']
        subprocess.run(command, cwd=directory, env=environment, check=True)
        stamp.write_text(expected, encoding='utf-8')


if __name__ == '__main__':
    main()
