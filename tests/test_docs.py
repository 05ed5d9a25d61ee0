"""What README.md, CONTRIBUTING.md and the pages below docs/ show is run.

- ``python``: the blocks of a page run in order, in one namespace, in a process of their own, with warnings as errors.
  What they write to standard error fails the test.
- ``sh``, or no language: every command is one that pip or the Makefile knows.
- ``text``: diagrams and messages, nothing to run; what the Python block before it prints, if it says so.
- any other language, and a block that must not be run, gives the reason (see ``tests/pages.py``).

The pages connect to servers of the tests: addresses of ``PLACES`` in the code are replaced by theirs, the variables of
``SERVERS`` in the environment lead to them.

A page runs twice, as a reader may run it again, the second time in a new namespace. No line of a sample is wider than
80 columns.
"""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

import gcpool.asyncio
import gcpool.threading
from tests.contrib.mariadb import running_mariadb
from tests.contrib.redis_server import running_redis
from tests.contrib.servers import PATIENCE, EchoServer, running_postgres, tcp_listener
from tests.pages import ROOT, Block, UnclearBlock, blocks_of, inline_code_of, links_of, page_name, pages
from tests.support import program_environment

# What stands in the code of the pages, and the fixture that says what it is replaced by.
PLACES = {'8080': 'echo_port', '8443': 'tls_port', '/run/echo.sock': 'unix_path'}
# Variables of the environment that the code of the pages reads, and the fixture that gives the value.
SERVERS = {
    'DATABASE_URL': 'postgres_url',
    'MYSQL_URL': 'mysql_url',
    'REDIS_URL': 'redis_url',
    'HTTP_URL': 'http_url',
}
# What a page may import that is not installed everywhere: module, and what to install.
OPTIONAL = {
    'aiomysql': 'aiomysql',
    'aiosqlite': 'aiosqlite',
    'asyncmy': 'asyncmy',
    'asyncpg': 'asyncpg',
    'django': 'Django',
    'psycopg': 'psycopg',
    'psycopg2': 'psycopg2',
    'prometheus_client': 'prometheus-client',
    'psycopg_pool': 'psycopg_pool',
    'pymysql': 'pymysql',
    'redis': 'redis',
    'sqlalchemy': 'SQLAlchemy',
}

# Wider code is cut off on a page.
SAMPLE_COLUMNS = 80

DIRECTIVES = {'{eval-rst}', '{figure}', '{glossary}', '{include}', '{literalinclude}', '{toctree}'}
SHELL = {'', 'sh'}
GCPOOL_COMMANDS = {'check', 'demo', 'holders', 'plot', 'top'}

# pytest brings it along where Python has none.
toml = importlib.import_module('tomllib' if sys.version_info >= (3, 11) else 'tomli')
PROJECT = toml.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
BLOCKS: dict[str, list[Block]] = {}
UNCLEAR: dict[str, str] = {}
for path in pages():
    try:
        BLOCKS[page_name(path)] = list(blocks_of(path.read_text(encoding='utf-8')))
    except UnclearBlock as exc:
        UNCLEAR[page_name(path)] = str(exc)


def blocks_in(languages: set[str]) -> list[Any]:
    """The blocks of some languages that are not excused, each as a parameter of a test."""
    return [
        pytest.param(block, id=f'{page}:{block.line}')
        for page, blocks in BLOCKS.items()
        for block in blocks
        if block.language in languages and block.reason is None
    ]


def python_blocks(page: str) -> list[Block]:
    return [block for block in BLOCKS[page] if block.language == 'python' and block.reason is None]


def blocks_in_rst(page: str) -> list[Block]:
    return [block for block in BLOCKS[page] if block.language == '{eval-rst}']


PYTHON_PAGES = [page for page in BLOCKS if python_blocks(page)]


# ---------------------------------------------------------------------------------------------------------------------
# Servers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def echo_port() -> Iterator[str]:
    """The port of a TCP server that sends back what it receives."""
    with EchoServer(tcp_listener()) as server:
        yield str(server.port)


@pytest.fixture(scope='module')
def tls_port(authority: trustme.CA) -> Iterator[str]:
    """The port of one that speaks TLS and is called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost').configure_cert(context)
    with EchoServer(tcp_listener(), context) as server:
        yield str(server.port)


@pytest.fixture(scope='module')
def authority() -> trustme.CA:
    """Who vouches for the TLS server."""
    return trustme.CA()


@pytest.fixture
def unix_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of one on a Unix domain socket."""
    if not hasattr(socket, 'AF_UNIX'):
        pytest.skip('Python has no Unix domain sockets on this system')
    import tempfile

    # Short: such a path has at most 104 bytes on macOS.
    with tempfile.TemporaryDirectory(prefix='gcpool-', dir='/tmp') as directory:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f'{directory}/echo.sock')
        listener.listen()
        with EchoServer(listener):
            yield f'{directory}/echo.sock'


@pytest.fixture(scope='module')
def postgres_url() -> Iterator[str]:
    with running_postgres() as server:
        yield server.dsn


@pytest.fixture(scope='module')
def mysql_url() -> Iterator[str]:
    with running_mariadb() as server:
        yield server.url


@pytest.fixture(scope='module')
def redis_url() -> Iterator[str]:
    with running_redis() as server:
        yield server.url


class HttpHandler(BaseHTTPRequestHandler):
    """Answers everything with what it was sent, or else with a greeting, and keeps the connection."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length', 0))) or b'hello'
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name in the base class)
        """Keep quiet."""


@pytest.fixture(scope='module')
def http_url() -> Iterator[str]:
    """An HTTP server that keeps connections open."""
    with ThreadingHTTPServer(('127.0.0.1', 0), HttpHandler) as server:
        # Its threads end with their connections, at the latest when the programs of the pages do.
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05})
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


# ---------------------------------------------------------------------------------------------------------------------
# Python
# ---------------------------------------------------------------------------------------------------------------------


def imported_modules(code: str) -> set[str]:
    """The names of the modules that a block imports; of gcpool.contrib.x also x."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update((node.module, *(f'{node.module}.{alias.name}' for alias in node.names)))
    return {name.removeprefix('gcpool.contrib.').split('.')[0] for name in names}


def with_outputs(page: str) -> list[tuple[int, str, str | None]]:
    """The Python blocks of a page, each with what it is to print."""
    found: list[tuple[int, str, str | None]] = []
    before = None
    for block in BLOCKS[page]:
        if block.is_output:
            assert before in python_blocks(page), f'{page}, line {block.line}: it is the output of no Python block'
            line, code, _ = found.pop()
            found.append((line, code, block.code))
        elif block in python_blocks(page):
            found.append((block.line, block.code, None))
        before = block
    return found


@pytest.mark.parametrize(
    'page',
    [
        pytest.param(
            page,
            marks=pytest.mark.postgres if any('DATABASE_URL' in block.code for block in python_blocks(page)) else (),
        )
        for page in PYTHON_PAGES
    ],
)
def test_python_blocks(page: str, request: pytest.FixtureRequest, tmp_path: Path, authority: trustme.CA) -> None:
    blocks = with_outputs(page)
    code = '\n'.join(code for _, code, _ in blocks)
    for name in sorted(imported_modules(code) & set(OPTIONAL)):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f'{OPTIONAL[name]} is not installed')
    places = {place: request.getfixturevalue(fixture) for place, fixture in PLACES.items() if place in code}
    variables = {name: request.getfixturevalue(fixture) for name, fixture in SERVERS.items() if name in code}
    authority.cert_pem.write_to_path(tmp_path / 'authority.pem')
    for place, actual in places.items():
        blocks = [(line, code.replace(place, actual), expected) for line, code, expected in blocks]

    result = subprocess.run(
        [sys.executable, '-W', 'error', str(ROOT / 'tests' / 'page_program.py')],
        # A reader runs a page again, in the directory where the first run has left its files.
        input=json.dumps({'page': str(ROOT / page), 'blocks': blocks, 'times': 2}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        # A page may leave files behind.
        cwd=tmp_path,
        env={**program_environment(), **variables, 'SSL_CERT_FILE': str(tmp_path / 'authority.pem')},
    )

    assert (result.returncode, result.stderr) == (0, ''), result.stderr


@pytest.mark.parametrize('page', BLOCKS)
def test_samples_are_not_wide(page: str) -> None:
    wide = [
        f'{page}, line {block.line + number}: {line}'
        for block in BLOCKS[page]
        if block.language in {'python'} | SHELL
        for number, line in enumerate(block.code.splitlines(), 1)
        if len(line) > SAMPLE_COLUMNS
    ]
    assert not wide


def test_examples_are_not_wide() -> None:
    wide = [
        f'{path.name}: {line}'
        for path in (ROOT / 'examples').glob('*.py')
        for line in path.read_text(encoding='utf-8').splitlines()
        if len(line) > SAMPLE_COLUMNS
    ]
    assert not wide


@pytest.mark.parametrize('page', BLOCKS)
def test_samples_name_no_type_of_a_pool(page: str) -> None:
    for block in BLOCKS[page]:
        assert block.language != 'python' or not re.search(r'ConnectionPool\[[^\n]*\]\(', block.code), (
            f'{page}, line {block.line}: mypy and pyright infer the types from the manager'
        )


DATABASES = ('asyncmy', 'asyncpg', 'psycopg', 'psycopg2', 'pymysql', 'redis', 'sqlite')


@pytest.mark.parametrize('driver', DATABASES)
def test_a_database_page_begins_with_what_becomes_of_transactions(driver: str) -> None:
    text = (ROOT / 'docs' / 'drivers' / f'{driver}.md').read_text(encoding='utf-8')
    assert re.match(r'# .*\n\n```\{warning\}\n\*\*The pool never commits\.\*\*', text)


@pytest.mark.parametrize('page', PYTHON_PAGES)
def test_blocks_run_what_they_define(page: str) -> None:
    for block in python_blocks(page):
        if 'async def main(' in block.code:
            assert 'asyncio.run(' in block.code, f'{page}, line {block.line}: what it shows does not happen'


# ---------------------------------------------------------------------------------------------------------------------
# Everything else
# ---------------------------------------------------------------------------------------------------------------------


def pip_faults(arguments: list[str]) -> Iterator[str]:
    """What is wrong about the arguments of ``pip install``."""
    projects = {
        re.split(r'[\[<>=;! ]', requirement)[0].lower()
        for requirements in (
            *PROJECT['project']['optional-dependencies'].values(),
            *PROJECT['dependency-groups'].values(),
        )
        for requirement in requirements
        if isinstance(requirement, str)
    }
    arguments = iter(arguments)  # type: ignore[assignment]
    for argument in arguments:
        if argument == '--group':
            group = next(iter(arguments), None)
            if group not in PROJECT['dependency-groups']:
                yield f'there is no dependency group {group}'
            continue
        match = re.fullmatch(r'(?P<name>[\w.-]+)(\[(?P<extras>[\w, -]+)\])?', argument)
        if match is None:
            yield f'{argument} is nothing to install'
        elif match['name'] in {'gcpool', '.'}:
            extras = set((match['extras'] or '').replace(' ', '').split(',')) - {''}
            yield from (
                f'there is no extra {extra}'
                for extra in sorted(extras - set(PROJECT['project']['optional-dependencies']))
            )
        elif match['name'].lower() not in projects:
            yield f'{match["name"]} is not among the dependencies of this project'


def shell_faults(script: str) -> Iterator[str]:
    """What is wrong about the commands of a block."""
    targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)
    for line in script.replace('\\\n', ' ').splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError as exc:
            yield f'{line!r} is no command: {exc}; if it is not for a shell, say the language'
            continue
        while words and re.fullmatch(r'[A-Z_]+=.*', words[0]):
            del words[0]
        match words:
            case []:
                pass
            case ['pip', 'install', *arguments]:
                yield from pip_faults(arguments)
            case ['make', *arguments]:
                for argument in arguments:
                    if '=' not in argument and argument not in targets:
                        yield f'there is no target {argument} in the Makefile'
            case ['python', '-m', 'gcpool', command, *_] if command in GCPOOL_COMMANDS:
                pass
            case ['python', program, *_] if (ROOT / program).is_file():
                pass
            case _:
                yield f'{line!r} is nothing that is known here'


@pytest.mark.parametrize('block', blocks_in(SHELL))
def test_shell_blocks(block: Block) -> None:
    assert not list(shell_faults(block.code))


@pytest.mark.parametrize('page', BLOCKS)
def test_commands_in_sentences(page: str) -> None:
    commands = [
        code for code in inline_code_of((ROOT / page).read_text(encoding='utf-8')) if re.match('(pip|make) ', code)
    ]
    assert not [fault for command in commands for fault in shell_faults(command)]


@pytest.mark.parametrize('block', blocks_in({'{eval-rst}'}))
def test_rst_only_takes_docstrings(block: Block) -> None:
    for line in block.code.splitlines():
        assert re.match(r'\s*(\.\. auto\w+::|:[\w-]+:|[\w.~]+$|$)', line), f'this may hold code that is not run: {line}'


@pytest.mark.parametrize('page', BLOCKS)
def test_every_language_is_dealt_with(page: str) -> None:
    for block in BLOCKS[page]:
        known = {'python', 'text'} | SHELL | (DIRECTIVES if page.startswith('docs/') else set())
        assert block.language in known or block.reason, (
            f'{page}, line {block.line}: nothing is done with {block.language}; mend it, or say why it is not run'
        )
        assert block.reason is None or len(block.reason.split()) >= 3, f'{page}, line {block.line}: give the reason'
        if block.is_output:
            assert block.language == 'text', f'{page}, line {block.line}: output is text'


def test_every_page_is_looked_at() -> None:
    assert not UNCLEAR
    assert {'README.md', 'docs/index.md', 'docs/quickstart.md', 'docs/managers.md'} <= set(BLOCKS)
    assert {'README.md', 'docs/quickstart.md', 'docs/managers.md', 'docs/parameters.md'} <= set(PYTHON_PAGES)
    others = {path.suffix for path in (ROOT / 'docs').rglob('*') if path.is_file()}
    assert others <= {'.md', '.svg', '.css', '.toml', '.py', '.pyc'}, 'pages in another format are not looked at'


def test_every_example_is_shown() -> None:
    shown = {Path(block.argument).name for block in BLOCKS['docs/examples.md'] if block.language == '{literalinclude}'}
    assert shown == {path.name for path in (ROOT / 'examples').glob('*.py')}


def test_every_manager_is_described() -> None:
    managers = {
        f'gcpool.contrib.{path.stem}.{node.name}'
        for path in (ROOT / 'src' / 'gcpool' / 'contrib').glob('[a-z]*.py')
        for node in ast.parse(path.read_text(encoding='utf-8')).body
        if isinstance(node, ast.ClassDef) and node.name.endswith('ConnectionManager')
    }
    described: list[str] = []
    for page in BLOCKS:
        for block in blocks_in_rst(page):
            described += re.findall(r'autoclass:: (\S+)', block.code)
            for module, members in re.findall(r'automodule:: (\S+)\n   :members: (.+)', block.code):
                described += [f'{module}.{member.strip()}' for member in members.split(',')]
    assert managers <= set(described)
    assert len(described) == len(set(described))


@pytest.mark.parametrize('pool', [gcpool.threading.ConnectionPool, gcpool.asyncio.ConnectionPool])
def test_the_defaults_are_shown(pool: type) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(pool).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and not name.startswith('_')
    }
    calls = [
        node for node in ast.walk(ast.parse(python_blocks('docs/parameters.md')[0].code)) if isinstance(node, ast.Call)
    ]
    shown = {keyword.arg: ast.literal_eval(keyword.value) for call in calls for keyword in call.keywords}
    assert shown == defaults


@pytest.mark.parametrize('runtime', ['asyncio', 'threads'])
def test_editors_show_what_help_shows(runtime: str) -> None:
    pool = gcpool.asyncio.ConnectionPool if runtime == 'asyncio' else gcpool.threading.ConnectionPool
    source = (ROOT / 'src' / 'gcpool' / f'_runtime_{runtime}.py').read_text(encoding='utf-8')
    declared = {
        node.name: ast.get_docstring(node) or ''
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    for name in ('acquire', 'release', 'connection', 'try_acquire', 'discard', 'detach'):
        assert declared[name].split() == (inspect.getdoc(getattr(pool, name)) or '').split() != [], name


def test_wheels_are_built_for_the_pythons_that_are_named() -> None:
    found = re.search(
        r'Python 3\.(\d+) to 3\.(\d+), the free-threaded 3\.(\d+) and 3\.(\d+) included, on Linux, macOS and Windows',
        (ROOT / 'README.md').read_text(encoding='utf-8'),
    )
    assert found is not None
    first, last, *free_threaded = map(int, found.groups())
    expected = {f'cp3{minor}' for minor in range(first, last + 1)} | {f'cp3{minor}t' for minor in free_threaded}
    assert {build.removesuffix('-*') for build in PROJECT['tool']['cibuildwheel']['build'].split()} == expected
    assert PROJECT['project']['requires-python'] == f'>=3.{first}'
    named = re.findall(r':: 3\.(\d+)$', '\n'.join(PROJECT['project']['classifiers']), re.MULTILINE)
    assert {*map(int, named)} == {*range(first, last + 1)}


@pytest.mark.parametrize('page', BLOCKS)
def test_links_lead_somewhere(page: str) -> None:
    targets = [
        target.partition('#')[0]
        for target in links_of((ROOT / page).read_text(encoding='utf-8'))
        if '://' not in target
    ]
    missing = [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing


# ---------------------------------------------------------------------------------------------------------------------
# These tests
# ---------------------------------------------------------------------------------------------------------------------


def test_blocks_are_found_wherever_they_stand() -> None:
    page = """\
1. item

   ~~~python title
   a = 1
   ~~~
> ```sh
> make
> ```
````{note}
text

<!-- not run: it would take too long -->
```python
b = 2
```
````
"""
    assert list(blocks_of(page)) == [
        Block('python', 'title', 'a = 1\n', 3),
        Block('sh', '', 'make\n', 6),
        Block('python', '', 'b = 2\n', 13, 'it would take too long'),
    ]


@pytest.mark.parametrize(
    'page',
    [
        pytest.param('text\n\n    code = 1\n', id='indented code'),
        pytest.param('<pre>code = 1</pre>\n', id='HTML'),
        pytest.param('<!-- not run: a reason -->\n\ntext\n', id='comment before text'),
        pytest.param('text\n\n<!-- not run: a reason -->\n', id='comment at the end'),
        pytest.param('<!-- not-run: a reason -->\n```python\n```\n', id='misspelt comment'),
    ],
)
def test_code_that_would_not_be_looked_at_is_refused(page: str) -> None:
    with pytest.raises(UnclearBlock):
        list(blocks_of(page))


@pytest.mark.parametrize(
    'command',
    [
        'pip install "gcpool[nothing]"',
        'pip install gcpol',
        'pip install --group nothing',
        'make nothing',
        'python examples/nothing.py',
        'rm -rf /',
    ],
)
def test_a_wrong_command_is_refused(command: str) -> None:
    assert list(shell_faults(command))


@pytest.mark.parametrize(
    ('code', 'message'),
    [
        pytest.param('x = 1\nraise ValueError(x)', 'page.md", line 12', id='exception'),
        pytest.param('import warnings\nwarnings.warn("old")', 'UserWarning: old', id='warning'),
        pytest.param('import socket\nsocket.socket()', 'ResourceWarning', id='leak'),
        pytest.param('print("b")', 'expected the output\na\n\nbut got\nb\n', id='output'),
    ],
)
def test_a_wrong_page_is_refused(code: str, message: str) -> None:
    blocks = [(5, 'y = 1', None), (10, code, 'a\n' if 'print' in code else None)]
    result = subprocess.run(
        [sys.executable, '-W', 'error', str(ROOT / 'tests' / 'page_program.py')],
        input=json.dumps({'page': 'page.md', 'blocks': blocks}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert message in result.stderr
