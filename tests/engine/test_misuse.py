"""Objects that only the pool makes, made by hand, and waiters that ask again: an error, and nothing is changed."""

from collections.abc import Callable
from typing import Any

import pytest

from gcpool._core import (
    AsyncConnectionContext,
    CreateCall,
    Disposal,
    Entry,
    ReleaseCoroutine,
    SyncConnectionContext,
    Waiter,
)
from tests.engine.support import Pool


@pytest.mark.parametrize(
    'use',
    [
        lambda core: core.release(Entry(), 0.0),
        lambda core: core.release(None, 0.0),
        lambda core: core.disposed(Entry(), 0.0),
        lambda core: core.disposed(None, 0.0),
        lambda core: core.doom_again(Entry()),
        lambda core: core.created(Entry(), 1, 0.0),
        lambda core: core.created(None, 1, 0.0),
        lambda core: core.begin_release(Entry()),
        lambda core: core.begin_release(None),
        lambda core: core.adopt(Waiter('a'), Entry()),
        lambda core: core.adopt(None, None),
        lambda core: core.create_failed(Waiter('a'), 0.0),
        lambda core: core.create_failed(None, 0.0),
        lambda core: core.reject_dead(Waiter('a')),
        lambda core: core.reject_dead(None),
        lambda core: core.still_holds(Waiter('a')),
        lambda core: core.still_holds(None),
        lambda core: core.cancel(None, 0.0),
        lambda core: core.give_up(None),
        lambda core: core.request(None, 0.0),
        lambda core: core.retire(Entry(), 0.0),
        lambda core: core.watch_gone(Waiter(None), Entry()),
        lambda core: core.watch_gone(None, None),
        lambda core: core.watch_empty(None),
        lambda core: core.unwatch(None),
        lambda core: Waiter('a').__init__('b'),
        lambda core: SyncConnectionContext().__enter__(),
        lambda core: SyncConnectionContext().__exit__(None, None, None),
        lambda core: AsyncConnectionContext().__aenter__(),
        lambda core: AsyncConnectionContext().__aexit__(None, None, None),
        lambda core: Disposal().send(None),
        lambda core: Disposal().endpoint,
        lambda core: CreateCall().send(None),
        lambda core: ReleaseCoroutine().send(None),
        lambda core: next(ReleaseCoroutine()),
    ],
)
def test_what_was_made_by_hand_is_refused(use: Callable[[Any], object]) -> None:
    pool = Pool(max_size=1, total_max_size=1)
    with pytest.raises((RuntimeError, TypeError)):
        use(pool.core)
    pool.core.check_invariants()


def test_a_waiter_asks_once_at_a_time() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.ask('a'), pool.ask('a')
    for acquire, answer in ((holder, 'ticket'), (waiting, 'waits')):
        with pytest.raises(RuntimeError, match='already waits, or holds'):
            pool.ask_again(acquire)
        assert acquire.answer == answer
    pool.cancel(waiting)
    pool.cancel(holder)
    assert pool.core.size == 0
