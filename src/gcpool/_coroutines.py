"""Native coroutines. The compiled part returns them where nothing is left to await."""

__all__ = ['acquired', 'discarded', 'not_discarded', 'not_released', 'released']


async def acquired(conn: object) -> object:
    """Entering a context that took a ready connection."""
    return conn


async def released() -> None:
    """A release that was done when it was called."""


async def not_released(exc: BaseException) -> None:
    """A release that failed when it was called: its caller gets the error by awaiting it."""
    try:
        raise exc
    finally:
        # The traceback of the exception refers to this frame: a reference from the frame would make a cycle.
        del exc


async def discarded() -> None:
    """A discard that leaves nothing to close."""


async def not_discarded(exc: BaseException) -> None:
    """A discard that failed when it was called."""
    try:
        raise exc
    finally:
        del exc  # see not_released()


# The warning about a coroutine that was never awaited shows these names.
acquired.__qualname__ = 'ConnectionPool.connection'
discarded.__qualname__ = not_discarded.__qualname__ = 'ConnectionPool.discard'
released.__qualname__ = not_released.__qualname__ = 'ConnectionPool.release'
