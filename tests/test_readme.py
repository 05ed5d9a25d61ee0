"""README.md as PyPI and GitHub show it, and what else a stranger meets first: addresses, figures, releases.

The addresses of the project are those of ``[project.urls]`` in pyproject.toml. Every other file that has one is
compared.
"""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from datetime import date
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

import gcpool
from tests.pages import ROOT, blocks_of, links_of
from tests.support import program_environment

# pytest brings it along where Python has none.
toml = importlib.import_module('tomllib' if sys.version_info >= (3, 11) else 'tomli')
PROJECT = toml.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))
URLS: dict[str, str] = PROJECT['project']['urls']
SOURCE, DOCUMENTATION = URLS['Source'], URLS['Documentation']

README = (ROOT / 'README.md').read_text(encoding='utf-8')
CHANGELOG = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
# What GitHub has beside the files, and what pyproject.toml names.
PARTS_OF_THE_SITE = {'', '/issues', '/security/advisories/new'}
# How GitHub leads to a folder, to a file, and to what is in a file.
LEADS_TO = {'tree': Path.is_dir, 'blob': Path.is_file, 'raw': Path.is_file}
# Where an address of this project can stand, wherever the project is.
ADDRESS = re.compile(
    r'https://(?!pypi\.org/)(?:[\w.-]+/[\w.-]+/gcpool|gcpool[\w-]*\.[\w.-]+)(?![\w-])(?:/[^\s<>"\')\]`]*)?'
)
# Of the pages that users read, and of the files that GitHub and PyPI read.
FILES_WITH_ADDRESSES = sorted(
    path
    for pattern in ('*.md', '*.cff', '*.toml', '.github/*.md', '.github/ISSUE_TEMPLATE/*', 'docs/**/*.md', 'changes/*')
    for path in ROOT.glob(pattern)
)
# Classes of the names in [project.urls] that PyPI gives an icon, so that none is misspelt.
KNOWN_URLS = {'Homepage', 'Documentation', 'Source', 'Issues', 'Changelog'}


@cache
def headings_of(page: Path) -> frozenset[str]:
    """The anchors of a page: of its headings, and those that it sets itself."""
    text = page.read_text(encoding='utf-8')
    tokens = MarkdownIt('commonmark').parse(text)
    titles = [
        ''.join(child.content for child in tokens[index + 1].children or ())
        for index, token in enumerate(tokens)
        if token.type == 'heading_open'
    ]
    slugs = [re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles]
    return frozenset([*slugs, *re.findall(r'^\(([\w-]+)\)=$', text, re.MULTILINE)])


def fault_of(link: str) -> str | None:
    """Say what is wrong with a link to this project; None if there is something behind it.

    :param link: an absolute address
    """
    address, _, anchor = link.partition('#')
    if address.startswith(DOCUMENTATION):
        page = address[len(DOCUMENTATION) :] or 'index.html'
        file = ROOT / 'docs' / page.replace('.html', '.md')
        if not page.endswith('.html') or not file.is_file():
            return f'{link}: there is no such page below docs/'
    elif address.startswith(SOURCE):
        rest = address[len(SOURCE) :].rstrip('/')
        if rest in PARTS_OF_THE_SITE:
            return None
        match = re.fullmatch(r'/(tree|blob|raw)/main/(.+)', rest)
        if match is None or not LEADS_TO[match[1]](ROOT / match[2]):
            return f'{link}: there is no such file or folder'
        file = ROOT / match[2]
    else:
        return f'{link} begins with neither {SOURCE} nor {DOCUMENTATION}, which pyproject.toml names'
    if anchor and (file.suffix != '.md' or anchor not in headings_of(file)):
        return f'{link}: {file.relative_to(ROOT)} has no such anchor'
    return None


class Seen(HTMLParser):
    """What a page refers to, and what can be referred to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {'href', 'src'} and value is not None:
                self.references.append(value)
            elif name == 'id' and value is not None:
                self.ids.add(value)


def figure(results: str, case: str, name: str) -> float:
    """A median of the benchmarks' results.

    :param results: the name of a file, without its suffix
    :param case: as it is called there
    :param name: of the figure
    """
    document = json.loads((ROOT / 'bench' / 'results' / f'{results}.json').read_text(encoding='utf-8'))
    (found,) = (
        entry['median']
        for one in document['cases']
        if one['case'] == case
        for entry in one['figures']
        if entry['figure'] == name
    )
    return float(found)


def environment(results: str) -> dict[str, Any]:
    """What the benchmarks ran on."""
    document = json.loads((ROOT / 'bench' / 'results' / f'{results}.json').read_text(encoding='utf-8'))
    found: dict[str, Any] = document['environment']
    return found


def tables() -> list[list[list[str]]]:
    """The tables of README.md, as rows of cells."""
    found: list[list[list[str]]] = []
    lines = [*README.splitlines(), '']
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith('|'):
            rows.append([cell.strip() for cell in line.strip('|').split('|')])
        elif rows:
            found.append([row for row in rows if not re.fullmatch('-+', row[0])])
            rows = []
    return found


def table_with(text: str) -> list[list[str]]:
    (found,) = (table for table in tables() if text in ' '.join(table[0]))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# As it is shown
# ---------------------------------------------------------------------------------------------------------------------


def test_it_renders_as_on_pypi() -> None:
    """In a process of its own: the renderer is compiled, and might switch the GIL on."""
    if importlib.util.find_spec('readme_renderer') is None:
        pytest.skip("could not import 'readme_renderer'")
    program = (
        'import pathlib, sys\n'
        'from readme_renderer.markdown import render\n'
        "text = pathlib.Path(sys.argv[1]).read_text(encoding='utf-8')\n"
        "sys.stdout.reconfigure(encoding='utf-8')\n"
        "print(render(text) or '')\n"
    )
    run = subprocess.run(
        [sys.executable, '-W', 'error', '-c', program, ROOT / 'README.md'],
        capture_output=True,
        encoding='utf-8',
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, '')
    seen = Seen()
    seen.feed(run.stdout)
    assert not [reference for reference in seen.references if not re.match('https://|#', reference)]
    assert {reference[1:] for reference in seen.references if reference.startswith('#')} <= seen.ids
    # PyPI removes what it does not allow: as many links and pictures are left as there were.
    absolute = [reference for reference in seen.references if reference.startswith('https://')]
    assert sorted(absolute) == sorted(link for link in links_of(README) if not link.startswith('#'))
    assert '<table>' in run.stdout
    assert '<img' in run.stdout


def test_it_is_what_pypi_shows() -> None:
    assert PROJECT['project']['readme'] == 'README.md'


def test_no_link_is_relative() -> None:
    assert not [link for link in links_of(README) if not re.match('https://|#', link)]


def test_every_link_has_something_behind_it() -> None:
    faults = [fault for link in links_of(README) if not link.startswith('#') and (fault := fault_of(link))]
    assert not faults


@pytest.mark.parametrize(
    ('link', 'fault'),
    [
        (SOURCE, None),
        (f'{SOURCE}/blob/main/README.md#install', None),
        (f'{DOCUMENTATION}quickstart.html#threads', None),
        (DOCUMENTATION, None),
        (f'{SOURCE}/blob/main/absent.md', 'no such file'),
        (f'{SOURCE}/blob/main/src', 'no such file'),
        (f'{SOURCE}/pulls/absent', 'no such file'),
        (f'{SOURCE}/blob/main/README.md#absent', 'no such anchor'),
        (f'{DOCUMENTATION}absent.html', 'no such page'),
        (f'{DOCUMENTATION}quickstart', 'no such page'),
        (f'{DOCUMENTATION}quickstart.html#absent', 'no such anchor'),
        ('https://example.com/gcpool', 'begins with neither'),
    ],
)
def test_a_link_without_anything_behind_it_is_found(link: str, fault: str | None) -> None:
    found = fault_of(link)
    assert found is None if fault is None else fault in (found or '')


# ---------------------------------------------------------------------------------------------------------------------
# The addresses
# ---------------------------------------------------------------------------------------------------------------------


def test_the_names_of_the_addresses_are_those_that_pypi_knows() -> None:
    assert set(URLS) == KNOWN_URLS
    assert all(url.startswith((SOURCE, DOCUMENTATION)) for url in URLS.values())


def test_every_file_has_the_addresses_of_pyproject() -> None:
    found = [
        (path.relative_to(ROOT).as_posix(), number, match[0].rstrip('.,:;'))
        for path in FILES_WITH_ADDRESSES
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
        for match in ADDRESS.finditer(line)
    ]
    assert {'README.md', 'CITATION.cff', 'SECURITY.md', 'pyproject.toml'} <= {path for path, _, _ in found}
    # The template of towncrier ends with the number of an issue.
    wrong = [
        f'{path}, line {number}: {fault_of(address)}'
        for path, number, address in found
        if fault_of(address.removesuffix('/{issue}')) is not None
    ]
    assert not wrong
    template = PROJECT['tool']['towncrier']['issue_format']
    assert f']({URLS["Issues"]}/{{issue}})' in template


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        ('see https://github.com/somebody/gcpool/issues.', 'https://github.com/somebody/gcpool/issues.'),
        ('(https://gitlab.com/somebody/gcpool)', 'https://gitlab.com/somebody/gcpool'),
        ('https://gcpool.readthedocs.io/en/latest/', 'https://gcpool.readthedocs.io/en/latest/'),
        ('https://gcpool-docs.example.org', 'https://gcpool-docs.example.org'),
        ('https://pypi.org/project/gcpool/', None),
        ('https://pypi.org/project/generic-connection-pool/', None),
        ('https://github.com/somebody/gcpool-tools', None),
    ],
)
def test_addresses_of_the_project_are_recognized(text: str, found: str | None) -> None:
    match = ADDRESS.search(text)
    assert (match[0] if match else None) == found


# ---------------------------------------------------------------------------------------------------------------------
# What it says
# ---------------------------------------------------------------------------------------------------------------------


def test_its_first_sample_is_six_lines_that_need_nothing_else(tmp_path: Path) -> None:
    blocks = list(blocks_of(README))
    first = next(block for block in blocks if block.language == 'python')
    output = blocks[blocks.index(first) + 1]
    assert len([line for line in first.code.splitlines() if line]) == 6
    assert output.is_output
    # Nothing but Python's own modules and gcpool, and twice, because a reader tries it twice.
    finder = (
        'import sys\n'
        'class Refuse:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.partition('.')[0] not in {*sys.stdlib_module_names, 'gcpool'}:\n"
        "            raise ImportError(f'{name} is not installed')\n"
        'sys.meta_path.insert(0, Refuse())\n'
    )
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, '-W', 'error', '-c', finder + first.code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env=program_environment(),
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, output.code, '')


def test_its_samples_fit_a_narrow_window_and_infer_their_types() -> None:
    for block in blocks_of(README):
        if block.language == 'python':
            assert max(map(len, block.code.splitlines())) <= 80
            assert not re.search(r'ConnectionPool\[', block.code)


def test_its_claims_name_what_checks_them() -> None:
    claims = table_with('checked by')[1:]
    assert len(claims) == 5
    for claim, checked_by in claims:
        files = re.findall(r'\]\(([^)]+)\)', checked_by)
        assert files, claim
        for name in re.findall(r'`(test_\w+)`', checked_by):
            texts = [(ROOT / file.partition('/main/')[2]).read_text(encoding='utf-8') for file in files]
            assert any(f'def {name}(' in text for text in texts), f'{name} is in none of {files}'


COLUMNS = {
    'generic-connection-pool': 'generic_connection_pool',
    "SQLAlchemy's `QueuePool`": 'SQLAlchemy QueuePool',
    'psycopg_pool': 'psycopg_pool',
    "asyncpg's pool": 'asyncpg',
}
ROWS = {
    'threads, `acquire`, `release`': 'threads: cycle',
    'threads, `with pool.connection()`': 'threads: context_manager',
    'asyncio, `acquire`, `release`': 'asyncio: cycle',
    'asyncio, `async with pool.connection()`': 'asyncio: context_manager',
}


def test_its_table_of_figures_is_that_of_the_results() -> None:
    head, *rows = table_with("asyncpg's pool")
    assert [row[0] for row in rows] == list(ROWS)
    shown = 0
    for title, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            if cell:
                name = f'gcpool: times as fast as {COLUMNS[column]}'
                assert int(cell) == round(figure('comparison', ROWS[title], name)), (title, column)
                shown += 1
    assert shown >= 10


# Of some sentences: the text with a figure, where the figure is from, and the decimals that it is rounded to.
SENTENCES = [
    (
        "{:.1f} times `queue.SimpleQueue`'s put and get",
        ('comparison', 'threads: cycle', 'gcpool: cost, in queue.SimpleQueue put+get'),
    ),
    (
        'takes {:.2f} of the processor time on threads',
        (
            'dropins',
            'threads: psycopg, SELECT 1, 16 on 8',
            'gcpool.psycopg_pool: processor time of a query, in that of psycopg_pool',
        ),
    ),
    (
        'and {:.2f} on asyncio',
        (
            'dropins',
            'asyncio: psycopg, SELECT 1, 64 on 8',
            'gcpool.psycopg_pool: processor time of a query, in that of psycopg_pool',
        ),
    ),
    (
        'a burst of 50 requests on 5 connections opens {:.0f}',
        ('servers', 'threads: spike of 50 on 5 to 50', 'gcpool: connections opened'),
    ),
    (
        'used in random order a cycle takes {:.0f} times as long as with one',
        (
            'comparison',
            'threads: many_endpoints',
            'gcpool: cost of a cycle, 100,000 endpoints shuffled against one',
        ),
    ),
]


@pytest.mark.parametrize(('sentence', 'source'), SENTENCES)
def test_its_sentences_have_the_figures_of_the_results(sentence: str, source: tuple[str, str, str]) -> None:
    assert sentence.format(figure(*source)) in README.replace('\n', ' ')


def test_what_is_said_of_sqlalchemy_and_of_queues_is_what_was_measured() -> None:
    text = re.sub(r'\s+', ' ', README)
    queries = figure(
        'dropins',
        'threads: SQLAlchemy, psycopg, SELECT 1, 16 on 8',
        "gcpool's QueuePool: throughput, in that of SQLAlchemy QueuePool",
    )
    assert queries < 1.005
    assert f'is no faster than with its `QueuePool` ({queries:.2f} of the queries)' in text
    half = figure('comparison', 'asyncio: cycle', 'gcpool: cost, in asyncio.LifoQueue put+get')
    assert 0.4 <= half <= 0.6


def test_it_names_the_python_that_was_measured_and_the_versions_that_it_compares_with() -> None:
    assert f'CPython {environment("comparison")["python"]}' in README
    assert f'`make bench-dropins`, CPython {environment("dropins")["python"]}' in README
    versions = environment('comparison')['versions']
    head = ' '.join(table_with('generic-connection-pool 0')[0])
    for title, package in [
        ('psycopg_pool', 'psycopg-pool'),
        ('SQLAlchemy', 'SQLAlchemy'),
        ('asyncpg', 'asyncpg'),
        ('generic-connection-pool', 'generic-connection-pool'),
    ]:
        assert f'{title} {".".join(versions[package].split(".")[:2])}' in head


def test_it_installs_every_extra_that_brings_a_driver() -> None:
    paragraph = README.partition('The part in brackets')[2].partition('\n\n')[0]
    named = set(re.findall(r'`([a-z0-9_]+)`', paragraph))
    others = {'http', 'prometheus', 'opentelemetry', 'monitor', 'plot', 'demo'}
    assert named == set(PROJECT['project']['optional-dependencies']) - others


# ---------------------------------------------------------------------------------------------------------------------
# Releases
# ---------------------------------------------------------------------------------------------------------------------

RELEASES = re.findall(r'^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$', CHANGELOG, re.MULTILINE)


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparison."""
    return tuple(map(int, re.findall(r'\d+', version)[:3]))


def test_the_changelog_has_releases_and_nothing_else() -> None:
    assert list(re.findall(r'^## (.*)$', CHANGELOG, re.MULTILINE)) == [
        f'{version} ({day})' for version, day in RELEASES
    ]
    assert RELEASES
    versions = [numbers(version) for version, _ in RELEASES]
    assert versions == sorted(set(versions), reverse=True)
    days = [date.fromisoformat(day) for _, day in RELEASES]
    assert days == sorted(days, reverse=True)
    start = PROJECT['tool']['towncrier']['start_string']
    assert CHANGELOG.count(start) == 1
    assert CHANGELOG.partition(start)[2].lstrip().startswith(f'## {RELEASES[0][0]} ')


def test_the_newest_release_is_the_version_of_the_package_or_an_older_one() -> None:
    assert numbers(RELEASES[0][0]) <= numbers(gcpool.__version__)


def test_the_citation_is_of_the_newest_release() -> None:
    text = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    values = dict(re.findall(r'^([a-z-]+): *(.*)$', text, re.MULTILINE))
    assert {'cff-version', 'message', 'title', 'authors', 'type', 'version', 'date-released', 'license'} <= set(values)
    assert (values['version'], values['date-released'].strip('"')) == RELEASES[0]
    assert (values['repository-code'], values['url']) == (SOURCE, DOCUMENTATION)
    assert values['license'] == PROJECT['project']['license']


def test_each_fragment_has_a_name_that_a_release_understands() -> None:
    kinds = {kind['directory'] for kind in PROJECT['tool']['towncrier']['type']}
    fragments = {path.name for path in (ROOT / 'changes').iterdir()} - set(PROJECT['tool']['towncrier']['ignore'])
    wrong = [
        name
        for name in sorted(fragments)
        if not re.fullmatch(rf'(\d+|\+[\w-]+)\.({"|".join(sorted(kinds))})(\.\d+)?\.md', name)
    ]
    assert not wrong
    assert not [name for name in fragments if not (ROOT / 'changes' / name).read_text(encoding='utf-8').strip()]
    described = (ROOT / 'changes' / 'README.md').read_text(encoding='utf-8')
    assert all(f'`{kind}`' in described for kind in kinds)


def test_it_says_until_when_the_oldest_python_is_kept() -> None:
    oldest = PROJECT['project']['requires-python'].removeprefix('>=')
    for name in ('README.md', 'CONTRIBUTING.md'):
        text = re.sub(r'\s+', ' ', (ROOT / name).read_text(encoding='utf-8'))
        assert re.search(rf'Python {re.escape(oldest)}\b[^.]*supported until \w+ 20\d\d', text), name


# ---------------------------------------------------------------------------------------------------------------------
# What is shipped
# ---------------------------------------------------------------------------------------------------------------------


def test_the_sdist_holds_what_a_stranger_looks_for() -> None:
    included = (ROOT / 'MANIFEST.in').read_text(encoding='utf-8').split()
    # setuptools puts README.md and the license in by itself.
    files = {path.name for path in ROOT.glob('*.md')} | {'CITATION.cff', 'Makefile'}
    assert files - {'README.md'} <= set(included)
    assert {'changes', 'docs', '.github'} <= set(included)


def wheel_checker() -> Any:
    spec = importlib.util.spec_from_file_location('check_wheel', ROOT / '.github' / 'scripts' / 'check_wheel.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    import zipfile

    module = wheel_checker()
    assert module.LIMIT == 900_000
    wheel = tmp_path / 'gcpool-0.1.0-cp314-cp314-linux_x86_64.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('gcpool/__init__.py', '')
        archive.writestr('gcpool/_core.so', bytes(module.LIMIT - 1000))
    assert module.fault_of(wheel) is None
    with zipfile.ZipFile(wheel, 'a') as archive:
        archive.writestr('gcpool/large.so', bytes(1000))
    fault = module.fault_of(wheel)
    assert fault is not None
    assert 'the limit is 900,000; its largest files: gcpool/_core.so 899,000, gcpool/large.so 1,000' in fault


def test_the_wheel_that_is_built_is_looked_at() -> None:
    rule = (ROOT / 'Makefile').read_text(encoding='utf-8').partition('\ndist/.built:')[2].partition('\n\n')[0]
    assert '.github/scripts/check_wheel.py dist' in rule
    data = PROJECT['tool']['setuptools']['package-data']
    assert data == {'*': ['py.typed', '*.pyi']}
