"""The ways in which a request is abandoned while the server is working on it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gcpool.contrib.errors import errors_in

Request = Callable[[], Awaitable[object]]

# Each receives a function that makes the request, and one that waits until the server is working on it.
Way = Callable[[Request, Request], Awaitable[None]]


async def by_cancellation(request: Request, at_work: Request) -> None:
    task = asyncio.ensure_future(request())
    await at_work()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_time_limit(request: Request, at_work: Request) -> None:
    task = asyncio.ensure_future(request())
    await at_work()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(task, 0.01)


async def by_cancel_scope(request: Request, at_work: Request) -> None:
    """Cancels repeatedly until the request has ended."""
    anyio = pytest.importorskip('anyio')
    async with anyio.create_task_group() as group:
        group.start_soon(request)
        await at_work()
        group.cancel_scope.cancel()


async def by_failed_sibling(request: Request, at_work: Request) -> None:
    anyio = pytest.importorskip('anyio')
    with pytest.raises(Exception, match='unhandled errors') as caught:  # noqa: PT012
        async with anyio.create_task_group() as group:
            group.start_soon(request)
            await at_work()
            raise LookupError
    assert any(isinstance(error, LookupError) for error in errors_in(caught.value))


WAYS: list[Way] = [by_cancellation, by_time_limit, by_cancel_scope, by_failed_sibling]


async def cancel(task: 'asyncio.Future[Any]') -> None:
    """Cancel a task, and check that it ends as cancelled."""
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
