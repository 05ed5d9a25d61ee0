"""Coroutines of the interpreter's own kind, which the compiled part returns where nothing is left to wait for."""

__all__ = ['acquired', 'not_released', 'released']


async def acquired(conn: object) -> object:
    """The beginning of a context that took a ready connection."""
    return conn


async def released() -> None:
    """A release that was done when it was called."""


async def not_released(exc: BaseException) -> None:
    """A release that failed when it was called: who awaits it gets the error."""
    try:
        raise exc
    finally:
        # Its traceback holds this frame.
        del exc


# In the warning about a coroutine that was never awaited.
acquired.__qualname__ = 'ConnectionPool.connection'
released.__qualname__ = not_released.__qualname__ = 'ConnectionPool.release'
