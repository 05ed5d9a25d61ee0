"""Generates the threading half from the asyncio half.

    src/gcpool/asyncio.py          -> src/gcpool/threading.py
    src/gcpool/_contexts_asyncio.py -> src/gcpool/_contexts_threads.py
    src/gcpool/_growing_asyncio.py -> src/gcpool/_growing_threads.py
    src/gcpool/_lifecycle_asyncio.py -> src/gcpool/_lifecycle_threads.py
    src/gcpool/_serving_asyncio.py -> src/gcpool/_serving_threads.py
    src/gcpool/psycopg_pool/*      -> the same, the pools and what they are made of
    tests/pool/NAME.py             -> tests/pool_threads/NAME.py, but for conftest.py, which is for coroutines
    tests/psycopg_pool/NAME.py     -> tests/psycopg_pool/threads/NAME.py, likewise

What is generated is checked in. ``--check`` changes nothing and fails, with a diff, where a checked-in file differs
from what would be generated, where a generated file has no source any more, or where one is missing.

What differs in kind between the two runtimes does not belong into the tables below but into the pair
``gcpool._runtime_asyncio`` and ``gcpool._runtime_threads``.
"""

import argparse
import ast
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parents[2]

# Whole tokens, wherever they stand in code; also a string that is nothing but the token, as in ``__all__``. `async`
# and `await` fall away, __aenter__ and its kin are known to unasync, which also turns any AsyncName into SyncName.
PSYCOPG_NAMES = {
    'ACT': 'CT',
    'AsyncConnectFailedCB': 'ConnectFailedCB',
    'AsyncConnection': 'Connection',
    'AsyncConnectionCB': 'ConnectionCB',
    'AsyncConnectionPool': 'ConnectionPool',
    'AsyncConninfoParam': 'ConninfoParam',
    'AsyncKwargsParam': 'KwargsParam',
    'AsyncNullConnectionPool': 'NullConnectionPool',
    'OriginalAsyncConnectionPool': 'OriginalConnectionPool',
    'OriginalAsyncNullConnectionPool': 'OriginalNullConnectionPool',
}
TOKENS = {
    'AsyncConnectionContext': 'SyncConnectionContext',
    'asynccontextmanager': 'contextmanager',
    'AsyncConnectionManager': 'SyncConnectionManager',
    **PSYCOPG_NAMES,
    'AsyncPool': 'SyncPool',
    'async_returning': 'sync_returning',
    'AsyncRuntime': 'SyncRuntime',
}

# Anything, comments and docstrings included; applied in this order and before the tokens.
TEXT = {
    'from gcpool import asyncio': 'from gcpool import threading',
    'gcpool.asyncio': 'gcpool.threading',
    '_blocks_asyncio': '_blocks_threads',
    '_connections_asyncio': '_connections_threads',
    '_contexts_asyncio': '_contexts_threads',
    '_engine_asyncio': '_engine_threads',
    '_growing_asyncio': '_growing_threads',
    '_lifecycle_asyncio': '_lifecycle_threads',
    '_serving_asyncio': '_serving_threads',
    'collector_asyncio': 'collector_threads',
    'events_asyncio': 'events_threads',
    '_runtime_asyncio': '_runtime_threads',
    'from .pool_async': 'from .pool',
    'tests.asyncio_': 'tests.threads',
    'tests.pool': 'tests.pool_threads',
    'tests.psycopg_pool': 'tests.psycopg_pool.threads',
}

PSYCOPG = Path('src/gcpool/psycopg_pool')
PACKAGE = {
    Path('src/gcpool/asyncio.py'): Path('src/gcpool/threading.py'),
    Path('src/gcpool/_contexts_asyncio.py'): Path('src/gcpool/_contexts_threads.py'),
    Path('src/gcpool/_growing_asyncio.py'): Path('src/gcpool/_growing_threads.py'),
    Path('src/gcpool/_lifecycle_asyncio.py'): Path('src/gcpool/_lifecycle_threads.py'),
    Path('src/gcpool/_serving_asyncio.py'): Path('src/gcpool/_serving_threads.py'),
    PSYCOPG / '_blocks_asyncio.py': PSYCOPG / '_blocks_threads.py',
    PSYCOPG / '_connections_asyncio.py': PSYCOPG / '_connections_threads.py',
    PSYCOPG / '_engine_asyncio.py': PSYCOPG / '_engine_threads.py',
    PSYCOPG / 'null_pool_async.py': PSYCOPG / 'null_pool.py',
    PSYCOPG / 'pool_async.py': PSYCOPG / 'pool.py',
}
# All of it: every module of the one directory becomes one of the other.
TESTS = {
    Path('tests/pool'): Path('tests/pool_threads'),
    Path('tests/psycopg_pool'): Path('tests/psycopg_pool/threads'),
}
# Runs coroutines, of which the threads' half has none.
ONLY_ASYNCHRONOUS = {'conftest.py'}

HEADER = '# Generated from {source} by .github/scripts/generate_threading.py; do not edit.\n\n'
HEADER_PATTERN = re.compile(r'\A# Generated from (?P<source>\S+) by \.github/scripts/generate_threading\.py;')


class GeneratorError(Exception):
    """The sources do not say what to generate."""


def plan(root: Path) -> dict[Path, Path]:
    """Find out what is generated from what.

    :param root: the root of the repository
    :return: target by source, both relative to the root
    """
    targets = {source: target for source, target in PACKAGE.items() if (root / source).exists()}
    for tests, generated in TESTS.items():
        for path in sorted((root / tests).glob('*.py')):
            if path.name not in ONLY_ASYNCHRONOUS:
                targets[tests / path.name] = generated / path.name
    return targets


def unlisted(root: Path, targets: dict[Path, Path]) -> list[Path]:
    """Find the files that say they are generated, or stand where all is generated, although nothing generates them.

    :param root: the root of the repository
    :param targets: target by source
    :return: those files, relative to the root
    """
    found = [generated / path.name for generated in TESTS.values() for path in sorted((root / generated).glob('*.py'))]
    for target in PACKAGE.values():
        path = root / target
        if path.exists() and HEADER_PATTERN.match(path.read_text(encoding='utf-8')):
            found.append(target)
    return [path for path in found if path not in targets.values()]


def ruff(root: Path, target: Path, text: str, *command: str) -> str:
    """Send a text through ruff, with the configuration that the target will be linted with."""
    result = subprocess.run(
        [sys.executable, '-m', 'ruff', *command, '--quiet', '--stdin-filename', str(root / target), '-'],
        cwd=root,
        input=text,
        capture_output=True,
        encoding='utf-8',
        check=False,
    )
    if result.returncode:
        raise GeneratorError(f'ruff cannot read what {target} would be:\n{result.stderr or result.stdout}')
    return result.stdout


def check_source(source: Path, text: str) -> None:
    """Refuse what cannot be turned into synchronous code, or not by every Python in the same way."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise GeneratorError(f'{source}: {error}') from error
    for literal in ast.walk(tree):
        if isinstance(literal, ast.JoinedStr):
            for node in ast.walk(literal):
                if isinstance(node, ast.Await) or (isinstance(node, ast.Name) and node.id in TOKENS):
                    # Before Python 3.12 an f-string is one token.
                    raise GeneratorError(f'{source}:{node.lineno}: take {ast.unparse(node)} out of the f-string')


def replace_tokens(text: str) -> str:
    """Turn asynchronous code into synchronous code."""
    rule = unasync.Rule(fromdir='/gcpool-async/', todir='/gcpool-sync/', additional_replacements=TOKENS)
    with tempfile.TemporaryDirectory() as directory:
        before = Path(directory, 'gcpool-async', 'module.py')
        before.parent.mkdir()
        before.write_text(text, encoding='utf-8', newline='\n')
        unasync.unasync_files([str(before)], [rule])
        return Path(directory, 'gcpool-sync', 'module.py').read_text(encoding='utf-8')


def generate(root: Path, source: Path, target: Path) -> str:
    """Make the text of one generated file.

    :param root: the root of the repository
    :param source: what it is made from, relative to the root
    :param target: what it will be called, relative to the root
    :return: the text, formatted
    """
    text = (root / source).read_text(encoding='utf-8')
    check_source(source, text)
    for old, new in TEXT.items():
        text = text.replace(old, new)
    # An import that only the asynchronous half needs falls away, and names sort differently.
    text = ruff(root, target, replace_tokens(text), 'check', '--fix', '--select', 'I,F401')
    return ruff(root, target, HEADER.format(source=source.as_posix()) + text.lstrip('\n'), 'format')


def check(root: Path) -> list[str]:
    """Compare what is checked in with what would be generated.

    :param root: the root of the repository
    :return: what is wrong, one text for each file
    """
    faults = []
    targets = plan(root)
    for source, target in targets.items():
        path = root / target
        present = path.read_text(encoding='utf-8') if path.exists() else ''
        expected = generate(root, source, target)
        if present != expected:
            diff = difflib.unified_diff(
                present.splitlines(keepends=True),
                expected.splitlines(keepends=True),
                f'{target.as_posix()} (checked in)',
                f'{target.as_posix()} (generated from {source.as_posix()})',
            )
            faults.append(''.join(diff))
    faults += [f'{path.as_posix()}: generated, but from nothing that exists' for path in unlisted(root, targets)]
    return faults


def write(root: Path) -> list[Path]:
    """Generate everything; a generated file that has lost its source is deleted.

    :param root: the root of the repository
    :return: the files that changed, relative to the root
    """
    changed = []
    targets = plan(root)
    for source, target in targets.items():
        path = root / target
        text = generate(root, source, target)
        if not path.exists() or path.read_text(encoding='utf-8') != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8', newline='\n')
            changed.append(target)
    for orphan in unlisted(root, targets):
        (root / orphan).unlink()
        changed.append(orphan)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, fail where something would change')
    parser.add_argument('--root', type=Path, default=ROOT, help='the root of the repository')
    options = parser.parse_args(arguments)
    try:
        if options.check:
            faults = check(options.root)
            if faults:
                print(*faults, sep='\n')
                print('The threading half is not what its source generates: run `make generate`.', file=sys.stderr)
            return 1 if faults else 0
        for path in write(options.root):
            print(path.as_posix())
    except GeneratorError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
