"""``PROMISES.md`` names the tests that hold each promise: they exist, they are run, and they are expected to pass."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.pages import ROOT

PAGE = 'tests/PROMISES.md'
# The section whose tests are expected to fail.
NOT_KEPT = 'Not kept yet'

NAME = re.compile(r'(?P<file>tests/[\w/]+\.py)(?P<classes>(::Test\w+)*)::(?P<function>test_\w+)')

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Row:
    """A promise.

    :param line: where it stands, counted from 1
    :param section: the heading above it
    :param promise: what is promised
    :param tests: what holds it
    :param rest: what stands beside the names of the tests
    """

    line: int
    section: str
    promise: str
    tests: tuple[str, ...]
    rest: str


def rows_of(text: str) -> Iterator[Row]:
    """Give the rows of the tables of a page."""
    section = ''
    cells: list[Token] = []
    tokens = MarkdownIt('commonmark').enable('table').parse(text)
    for index, token in enumerate(tokens):
        if token.type == 'heading_open':
            section = tokens[index + 1].content
        elif token.type == 'tr_open':
            cells = []
        elif token.type == 'td_open':
            cells.append(tokens[index + 1])
        elif token.type == 'tr_close' and cells:
            promise, tests = cells
            children = tests.children or []
            assert tests.map is not None
            yield Row(
                tests.map[0] + 1,
                section,
                promise.content,
                tuple(child.content for child in children if child.type == 'code_inline'),
                ''.join(child.content for child in children if child.type != 'code_inline').replace(', ', ''),
            )


def functions_of(body: list[ast.stmt], *classes: ast.ClassDef) -> Iterator[tuple[str, Function, list[ast.AST]]]:
    """Give the functions of a module, also those in classes or under an ``if``.

    :param body: the module's, or a part's of it
    :param classes: those around it
    :return: the name of each as in a test's id, itself, and itself with the classes around it
    """
    for node in body:
        if isinstance(node, Function):
            yield '::'.join([*(outer.name for outer in classes), node.name]), node, [*classes, node]
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node.body, *classes, node)
        elif isinstance(node, ast.If):
            yield from functions_of([*node.body, *node.orelse], *classes)


def marks_of(module: ast.Module, nodes: list[ast.AST]) -> dict[str, ast.expr]:
    """Find what a module and some nodes of it are marked with: the name of each mark, and how it is written."""
    assigned = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    decorators = [assigned['pytestmark']] if 'pytestmark' in assigned else []
    for node in nodes:
        decorators += getattr(node, 'decorator_list', [])
    found = {}
    for decorator in decorators:
        for written in decorator.elts if isinstance(decorator, (ast.List, ast.Tuple)) else [decorator]:
            mark = assigned.get(written.id, written) if isinstance(written, ast.Name) else written
            name = ast.unparse(mark.func if isinstance(mark, ast.Call) else mark)
            if name.startswith('pytest.mark.'):
                found[name.removeprefix('pytest.mark.')] = mark
    return found


def is_skip(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and ast.unparse(statement).startswith('pytest.skip(')


def is_always_skipped(module: ast.Module, function: Function, marks: dict[str, ast.expr]) -> bool:
    """Whether nobody ever runs a test. A condition that may be true on some system is none that always is."""
    condition = marks.get('skipif')
    if isinstance(condition, ast.Call) and isinstance(condition.args[0], ast.Constant) and condition.args[0].value:
        return True
    return (
        'skip' in marks
        or is_skip(function.body[ast.get_docstring(function) is not None])
        or any(is_skip(statement) for statement in module.body)
    )


@cache
def module_in(path: Path) -> ast.Module:
    """The source of a file, parsed. Whatever it imports need not be installed."""
    return ast.parse(path.read_text(encoding='utf-8'))


def faults_of_test(root: Path, name: str, fails: bool) -> Iterator[str]:
    """What is wrong about a test that is named.

    :param root: the root of the repository
    :param name: its id, without parameters
    :param fails: whether it is expected to fail
    """
    match = NAME.fullmatch(name)
    if match is None:
        yield f'{name} is not the id of a test, as in tests/pool/test_close.py::test_closing_twice_is_closing_once'
        return
    if match['file'].startswith('tests/pool_threads/'):
        yield f'{name} is generated: name the test that it is generated from'
        return
    path = root / match['file']
    if not path.is_file():
        yield f'{name}: there is no {match["file"]}'
        return
    module = module_in(path)
    wanted = name.removeprefix(f'{match["file"]}::')
    found = [(function, nodes) for each, function, nodes in functions_of(module.body) if each == wanted]
    if not found:
        yield f'{name}: there is no such test in {match["file"]}'
        return
    function, nodes = found[0]
    marks = marks_of(module, nodes)
    if is_always_skipped(module, function, marks):
        yield f'{name} is always skipped'
    if fails != ('xfail' in marks):
        yield f'{name} is expected to {"pass" if fails else "fail"}: its row belongs into another section'


def faults_of(text: str, root: Path) -> Iterator[str]:
    """What is wrong about a page.

    :param text: the page
    :param root: the root of the repository whose tests it names
    """
    rows = list(rows_of(text))
    if len(rows) + 2 * text.count('\n|---|---|\n') != sum(line.startswith('|') for line in text.splitlines()):
        yield 'some rows stand in no table'
    seen = set()
    for row in rows:
        if (row.section, row.promise) in seen:
            yield f'line {row.line}: the promise stands there twice'
        seen.add((row.section, row.promise))
        if not row.promise:
            yield f'line {row.line}: there is no promise'
        if row.rest:
            yield f'line {row.line}: {row.rest!r} is the name of no test'
        elif not row.tests:
            yield f'line {row.line}: no test holds it'
        if len({*row.tests}) < len(row.tests):
            yield f'line {row.line}: a test is named twice'
        for name in row.tests:
            for fault in faults_of_test(root, name, row.section == NOT_KEPT):
                yield f'line {row.line}: {fault}'


def test_each_promise_is_held_by_tests_that_are_run() -> None:
    text = (ROOT / PAGE).read_text(encoding='utf-8')
    assert len(list(rows_of(text))) > 250
    assert list(faults_of(text, ROOT)) == []


# ---------------------------------------------------------------------------------------------------------------------
# These tests
# ---------------------------------------------------------------------------------------------------------------------

MODULE = """
import sys
import pytest

elsewhere = pytest.mark.skip(reason='not here')

async def test_a(): pass

class TestOf:
    @pytest.mark.parametrize('x', [1])
    def test_b(self, x): pass

@pytest.mark.skip
class TestSkipped:
    def test_c(self): pass

if sys.version_info >= (3, 12):
    @pytest.mark.skipif(sys.platform == 'win32', reason='of the system')
    def test_d(): pass

@pytest.mark.skip(reason='too slow')
def test_skipped(): pass

@elsewhere
def test_skipped_elsewhere(): pass

@pytest.mark.skipif(True, reason='never')
def test_never(): pass

def test_skips():
    '''It says so.'''
    pytest.skip('not today')

@pytest.mark.xfail(strict=True, reason='to be done')
def test_fails(): pass

def helper(): pass
"""
HEAD = '# Promises\n\n| promise | tests |\n|---|---|\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / 'tests' / 'room').mkdir(parents=True)
    (tmp_path / 'tests' / 'room' / 'test_x.py').write_text(MODULE)
    (tmp_path / 'tests' / 'test_later.py').write_text(
        "import pytest\npytestmark = [pytest.mark.stress, pytest.mark.skip(reason='later')]\n\ndef test_e(): pass\n"
    )
    (tmp_path / 'tests' / 'test_nowhere.py').write_text(
        "import pytest\npytest.skip('nowhere', allow_module_level=True)\n\ndef test_f(): pass\n"
    )
    return tmp_path


def named(*names: str) -> str:
    return ', '.join(f'`tests/room/test_x.py::{name}`' for name in names)


def test_a_page_without_faults(root: Path) -> None:
    page = (
        f'{HEAD}| It `works` | {named("test_a")} |\n| So | {named("TestOf::test_b", "test_d")} |\n\n'
        f'## {NOT_KEPT}\n\n| promise | tests |\n|---|---|\n| It works | {named("test_fails")} |\n'
    )
    assert list(faults_of(page, root)) == []
    assert [(row.line, row.section, row.promise) for row in rows_of(page)] == [
        (5, 'Promises', 'It `works`'),
        (6, 'Promises', 'So'),
        (12, NOT_KEPT, 'It works'),
    ]


@pytest.mark.parametrize(
    ('rows', 'fault'),
    [
        ('| It works | |\n', 'line 5: no test holds it'),
        ('| It works |\n', 'line 5: no test holds it'),
        (f'| | {named("test_a")} |\n', 'line 5: there is no promise'),
        ('| It works | tests/room/test_x.py::test_a |\n', 'is the name of no test'),
        (f'| It works | {named("test_a")} and more |\n', "' and more' is the name of no test"),
        (f'| It works | {named("test_a")} |\n\n| So | {named("test_a")} |\n', 'some rows stand in no table'),
        (f'| It works | {named("test_a")} |\n' * 2, 'line 6: the promise stands there twice'),
        (f'| It works | {named("test_a", "test_a")} |\n', 'a test is named twice'),
        (f'| It works | {named("test_b")} |\n', 'there is no such test in tests/room/test_x.py'),
        (f'| It works | {named("TestOf::test_a")} |\n', 'there is no such test'),
        (f'| It works | {named("TestNone::test_b")} |\n', 'there is no such test'),
        (f'| It works | {named("test_a[1]")} |\n', 'is not the id of a test'),
        (f'| It works | {named("helper")} |\n', 'is not the id of a test'),
        ('| It works | `tests/room/test_y.py::test_a` |\n', 'there is no tests/room/test_y.py'),
        ('| It works | `room/test_x.py::test_a` |\n', 'is not the id of a test'),
        ('| It works | `tests/pool_threads/test_x.py::test_a` |\n', 'is generated'),
        (f'| It works | {named("TestSkipped::test_c")} |\n', 'is always skipped'),
        (f'| It works | {named("test_skipped")} |\n', 'is always skipped'),
        (f'| It works | {named("test_skipped_elsewhere")} |\n', 'is always skipped'),
        (f'| It works | {named("test_never")} |\n', 'is always skipped'),
        (f'| It works | {named("test_skips")} |\n', 'is always skipped'),
        ('| It works | `tests/test_later.py::test_e` |\n', 'is always skipped'),
        ('| It works | `tests/test_nowhere.py::test_f` |\n', 'is always skipped'),
        (f'| It works | {named("test_fails")} |\n', 'is expected to fail: its row belongs into another section'),
        (
            f'\n## {NOT_KEPT}\n\n| promise | tests |\n|---|---|\n| It works | {named("test_a")} |\n',
            'is expected to pass: its row belongs into another section',
        ),
    ],
)
def test_a_faulty_row_is_found(rows: str, fault: str, root: Path) -> None:
    found = list(faults_of(HEAD + rows, root))
    assert len(found) == 1
    assert fault in found[0]
