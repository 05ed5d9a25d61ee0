"""Says once that a transaction was rolled back that its user may have meant to be committed."""

import sys
from collections.abc import Hashable

from gcpool._core import GuardedLogger
from gcpool.contrib._descriptions import shown

__all__ = ['OpenTransactionWarning']


class OpenTransactionWarning:
    """Warns of a transaction that is rolled back although its user's block did not raise. Once a manager.

    :param logger: the manager's
    :param autocommit: how to have no transactions at all
    """

    def __init__(self, logger: GuardedLogger, autocommit: str = 'use autocommit') -> None:
        self._logger = logger
        self._autocommit = autocommit
        # Empty when the warning was given. Taking it out is atomic.
        self._left = [None]

    def about_to_roll_back(self, endpoint: Hashable) -> None:
        """Call this in a release that is about to roll back an open transaction.

        While an exception is on its way, out of the block or past a ``finally`` with the release, the rollback is what
        its user expects, and nothing is said.

        :param endpoint: of the connection
        """
        if not self._left or sys.exc_info()[0] is not None:
            return
        try:
            self._left.pop()
        except IndexError:
            # Another thread gives it.
            return
        self._logger.warning(
            'a transaction was left open on a connection to %r, and is rolled back: commit before the connection is '
            'returned, or %s (said once, for the first one)',
            shown(endpoint),
            self._autocommit,
        )
