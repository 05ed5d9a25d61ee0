"""Check the types of the code on the pages, by mypy and by pyright, as a reader's editor does.

A sample names no types of its pools: both infer them from the manager. Code that is not run is left out. A page may
define a name anew (a second ``main``).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.pages import blocks_of, page_name, pages  # noqa: E402

SAMPLES = ROOT / 'build' / 'samples'
MYPY = [
    '--config-file=',
    '--no-namespace-packages',
    '--python-version=3.12',
    '--check-untyped-defs',
    '--ignore-missing-imports',
    '--allow-redefinition',
    '--local-partial-types',
    '--disable-error-code=no-redef',
    '--disable-error-code=import-untyped',
    '--no-error-summary',
]


PYRIGHT = {
    'include': ['.'],
    'extraPaths': [str(ROOT / 'src')],
    'venvPath': str(ROOT),
    'venv': '.venv',
    'pythonVersion': '3.12',
    'typeCheckingMode': 'standard',
    # _core is described by its stub; psycopg2 and the like have none of their own.
    'reportMissingModuleSource': 'none',
    # A page shows main() after main().
    'reportRedeclaration': 'none',
}


def samples() -> Iterator[tuple[str, str]]:
    """Give the name and the code of each program, its lines where they are on the page.

    A page below docs/ is one program. What README.md shows are programs of their own, each with all its imports.
    """
    for page in pages():
        name = page_name(page).removesuffix('.md').replace('/', '_').replace('-', '_')
        blocks = [
            block
            for block in blocks_of(page.read_text(encoding='utf-8'))
            if block.language == 'python' and block.reason is None
        ]
        parts = [blocks] if name.startswith('docs_') else [[block] for block in blocks]
        for number, part in enumerate(parts):
            lines: list[str] = []
            for block in part:
                lines += [''] * (block.line - len(lines)) + block.code.splitlines()
            if lines:
                yield f'{name}_{number}' if number else name, '\n'.join([*lines, ''])


def write_samples() -> list[Path]:
    """Write each program into a module."""
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for old in SAMPLES.glob('*.py'):
        old.unlink()
    written: list[Path] = []
    for name, code in samples():
        path = SAMPLES / f'{name}.py'
        path.write_text(code, encoding='utf-8')
        written.append(path)
    return written


def main() -> int:
    """Check all pages; the result is the exit code."""
    paths = [str(path) for path in write_samples()]
    (SAMPLES / 'pyrightconfig.json').write_text(json.dumps(PYRIGHT), encoding='utf-8')
    mypy = subprocess.run(
        [sys.executable, '-m', 'mypy', *MYPY, *paths],
        check=False,
        cwd=ROOT,
        env={**os.environ, 'MYPYPATH': str(ROOT / 'src')},
    )
    pyright = subprocess.run(
        [sys.executable, '-m', 'pyright', '--project', str(SAMPLES / 'pyrightconfig.json')], check=False, cwd=ROOT
    )
    return mypy.returncode or pyright.returncode


if __name__ == '__main__':
    sys.exit(main())
