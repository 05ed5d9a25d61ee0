"""What holds for every test, whatever it tests.

Environment:

``GCPOOL_FORBID_SKIPS=1``
    A skipped test makes the run fail, at its end, by name.
``GCPOOL_ALLOW_SKIPS=REGULAR_EXPRESSIONS``
    Not if one of these, one a line, is found in the reason of the skip: what this system or environment cannot have.
``GCPOOL_NOTE_SKIPS=FILE``
    What was skipped is added to this file, and ``python -m tests.skips FILE`` tells it: ``make test`` does at its end.
``GCPOOL_QUICK=1``
    Fewer examples, shorter stress: for further Python versions and for the traced build.
``GCPOOL_EXPECT_BUILD=DIRECTORY``
    The compiled core must come from below this directory; else nothing is run.
``HYPOTHESIS_PROFILE``
    ``default``, ``quick`` or ``thorough``. With CI=true the first two draw the same examples each time.
"""

import gc
import importlib
import importlib.machinery
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from tests import skips

QUICK = os.environ.get('GCPOOL_QUICK', '0') == '1'
FORBID_SKIPS = os.environ.get('GCPOOL_FORBID_SKIPS', '0') == '1'
ALLOW_SKIPS = [line.strip() for line in os.environ.get('GCPOOL_ALLOW_SKIPS', '').splitlines() if line.strip()]
NOTE_SKIPS = os.environ.get('GCPOOL_NOTE_SKIPS')
FREE_THREADED = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))

# What the tests import if it is there. On free-threaded builds they go without those of them that switch the GIL on.
OPTIONAL = (
    'aiosqlite',
    'asyncmy',
    'asyncpg',
    'cryptography',
    'gevent',
    'psycopg',
    'psycopg2',
    'pymysql',
    'redis',
    'uvloop',
)
# What the dependency group test-free-threaded leaves out, which says why.
NOT_FREE_THREADED = ('aiosql', 'gevent', 'langgraph', 'opentelemetry', 'procrastinate', 'psycopg2')
# What the group test leaves out on Pythons that it has no wheels for.
NOT_YET = ('langgraph',) if sys.version_info >= (3, 15) else ()

# Seconds that a thread of the pool may take to end after the test that started it.
THREAD_GRACE = 10.0

# The time of an example depends on what else the machine does, so no test may depend on it.
hypothesis.settings.register_profile('default', deadline=None, print_blob=True)
hypothesis.settings.register_profile('quick', deadline=None, print_blob=True, max_examples=20)
hypothesis.settings.register_profile('thorough', deadline=None, print_blob=True, max_examples=2000, derandomize=False)
hypothesis.settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE') or ('quick' if QUICK else 'default'))

# Files with tests that run programs of the repository.
PROGRAM_TESTS = frozenset({'test_demo.py', 'test_docs.py', 'test_examples.py', 'test_services.py'})

skipped: dict[str, str] = {}
# Modules that are installed.
gone_without: list[str] = []
# Processes that run tests, for each of which it is told once that its GIL was switched on.
told_of_the_gil: set[int] = set()


def core_path() -> Path:
    """Where the compiled core was loaded from."""
    try:
        core = importlib.import_module('gcpool._core')
    except ImportError as error:
        raise pytest.UsageError(f'the compiled core cannot be imported ({error}): run `make build`') from error
    assert core.__file__ is not None
    return Path(core.__file__).resolve()


def gil_is_on() -> bool:
    """Whether the GIL is on, which one undeclared extension brings about for the whole process."""
    return bool(getattr(sys, '_is_gil_enabled', lambda: True)())


def those_that_switch_the_gil_on(modules: Iterable[str]) -> list[str]:
    """Find out of some modules which switch the GIL on, by importing each in a process of its own.

    :param modules: what need not be installed
    """
    program = 'import importlib, sys; importlib.import_module(sys.argv[1]); print(sys._is_gil_enabled())'

    def switches(module: str) -> bool:
        command = [sys.executable, '-W', 'ignore', '-c', program, module]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.endswith('True\n')

    modules = list(modules)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return [module for module, found in zip(modules, executor.map(switches, modules), strict=True) if found]


def loaded_extensions() -> set[str]:
    """The packages and modules that have brought extensions into this process."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return {
        name.partition('.')[0]
        for name, module in list(sys.modules.items())
        if (getattr(module, '__file__', None) or '').endswith(suffixes)
    }


def go_without_those_that_switch_the_gil_on() -> None:
    """Have the import of each fail in this process, as if it was not installed. xdist's workers are told which."""
    if 'GCPOOL_GO_WITHOUT' not in os.environ:
        os.environ['GCPOOL_GO_WITHOUT'] = ' '.join(those_that_switch_the_gil_on(OPTIONAL))
    gone_without.extend(os.environ['GCPOOL_GO_WITHOUT'].split())
    sys.modules.update(dict.fromkeys(gone_without))  # type: ignore[arg-type] # None is what import refuses


def pytest_configure() -> None:
    expected = os.environ.get('GCPOOL_EXPECT_BUILD')
    if expected and not core_path().is_relative_to(Path(expected).resolve()):
        raise pytest.UsageError(f'these tests are for the build in {expected}, but the core is {core_path()}')
    if FREE_THREADED and not gil_is_on():
        go_without_those_that_switch_the_gil_on()


def pytest_report_header() -> str:
    quick = ', quick' if QUICK else ''
    threading_model = f', free-threaded, GIL {"on" if gil_is_on() else "off"}' if FREE_THREADED else ''
    if gone_without:
        threading_model += f', without what would switch it on: {", ".join(gone_without)}'
    try:
        core: Path | str = core_path()
    except pytest.UsageError as error:
        core = str(error)
    return f'core: {core}{quick}{threading_model}'


def pytest_sessionstart() -> None:
    # A shell without job control has what it starts in the background ignore Ctrl-C, and that is handed down to every
    # program that a test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # By the file, before -m selects.
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if path.parts[0] == 'outages':
            item.add_marker('outage')
        elif path.name in PROGRAM_TESTS:
            item.add_marker('program')
    # What a Python does not have cannot be tested on it: that is no test left out, which a skip would be.
    marks = {item: item.get_closest_marker('since_python') for item in items}
    later = [item for item, mark in marks.items() if mark is not None and sys.version_info < mark.args]
    if later:
        config.hook.pytest_deselected(items=later)
        items[:] = [item for item in items if item not in later]


@hypothesis.settings(max_examples=1, database=None)
@hypothesis.given(st.none())
def let_hypothesis_make_its_random(_: None) -> None:
    """The first test of Hypothesis in a thread makes one, and looks for who refers to it: not among what is frozen."""


def pytest_collection_finish() -> None:
    let_hypothesis_make_its_random()
    # Many tests collect garbage, and should not look at thousands of collected tests each time.
    gc.collect()
    gc.freeze()


def note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    # An expected failure is reported as skipped, too.
    if report.skipped and not hasattr(report, 'wasxfail'):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped[report.nodeid] = reason


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note_skip(report)


def allowed_skips() -> list[str]:
    """Regular expressions."""
    names = [*NOT_FREE_THREADED, *gone_without] if FREE_THREADED else NOT_YET
    if not names:
        return ALLOW_SKIPS
    absent = '|'.join(names)
    return [*ALLOW_SKIPS, rf'(could not import|not installed).*\b({absent})\b', rf'\b({absent}) is not installed']


def may_be_skipped(reason: str) -> bool:
    return not FORBID_SKIPS or any(re.search(allowed, reason) for allowed in allowed_skips())


def faults() -> list[str]:
    """What makes a run fail in which every test passed."""
    return [f'skipped: {nodeid}: {reason}' for nodeid, reason in skipped.items() if not may_be_skipped(reason)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    # The workers of xdist, too: the main process is not told of modules that were skipped whole.
    if NOTE_SKIPS and skipped:
        skips.note(Path(NOTE_SKIPS), skipped)
    if faults() and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if faults():
        terminalreporter.section('not allowed')
        for fault in faults():
            terminalreporter.line(fault, red=True)


@pytest.hookimpl(specname='pytest_terminal_summary', wrapper=True, tryfirst=True)
def pytest_terminal_summary_at_its_end(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Behind the list of them that -ra makes, in which the same reason may stand hundreds of times."""
    yield
    if skips.command_here(skipped.values()) is not None:
        terminalreporter.section('skipped')
        for line in skips.told(skipped):
            terminalreporter.line(line)


def pool_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith('gcpool')}


@pytest.fixture(scope='session', autouse=True)
def watchdog_ends_soon() -> Iterator[None]:
    """The thread that watches time limits is the process's, not a pool's: here it does not stay long without work.

    So that the next fixture need not know it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('gcpool.contrib._watchdog.IDLE_TIME', 0.1)
        yield


@pytest.fixture(scope='module', autouse=True)
def what_stays_is_not_searched() -> None:
    """A full collection takes less than a ms then; with all that some thousand tests have imported it took 60 ms."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_pool_thread_survives() -> Iterator[None]:
    """A test closes its pools, or lets go of them: in both cases the collector's thread must end."""
    before = pool_threads()
    yield
    left = pool_threads() - before
    if not left:
        return
    gc.collect()
    deadline = time.monotonic() + THREAD_GRACE
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    alive = sorted(thread.name for thread in left if thread.is_alive())
    assert not alive, f'threads of the pool are still alive {THREAD_GRACE} s after the test: {alive}'


@pytest.fixture(autouse=True)
def the_gil_stays_off() -> Iterator[None]:
    """Without the GIL these tests show more. It is on for good after one undeclared extension was imported."""
    yield
    if FREE_THREADED and gil_is_on() and os.getpid() not in told_of_the_gil:
        told_of_the_gil.add(os.getpid())
        switching = ', '.join(those_that_switch_the_gil_on(sorted(loaded_extensions())))
        pytest.fail(f'the GIL was switched on, in this test or before, by what is not declared for it: {switching}')


@pytest.fixture
def error(request: pytest.FixtureRequest) -> BaseException | None:
    """An exception to raise, made for each test: one that was raised holds on to the frames that it went through."""
    made: BaseException | None = request.param()
    return made
