"""Runs each test that is a coroutine function on asyncio's event loop and on uvloop's, in debug mode.

A test that leaves a task behind fails, and so does one with an error that only the event loop sees.
"""

import asyncio
import gc
import importlib.util
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support import PATIENCE, set_debug

LOOPS = ['asyncio', 'uvloop'] if importlib.util.find_spec('uvloop') else ['asyncio']


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Make an event loop in debug mode."""
    if kind == 'uvloop':
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    set_debug(loop)
    return loop


async def turn_over() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, None], kind: str) -> None:
    """Run a coroutine to its end, with a time limit."""
    loop = new_loop(kind)
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))
    try:
        loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
        # A task of the pool that has done its work may have one step left.
        loop.run_until_complete(turn_over())
        left = asyncio.all_tasks(loop)
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        loop.run_until_complete(asyncio.wait(rest, timeout=PATIENCE) if rest else asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    gc.collect()
    assert not left, f'the test left tasks behind: {left}'
    assert not unhandled, f'errors that reached the event loop only: {unhandled}'


@pytest.fixture(autouse=True)
def loop_kind(request: pytest.FixtureRequest) -> str | None:
    """The event loop that a coroutine test runs on."""
    return getattr(request, 'param', None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.parametrize('loop_kind', LOOPS, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run(pyfuncitem.obj(**arguments), str(pyfuncitem.funcargs['loop_kind']))
    return True
