"""A plugin of pytest for SQLAlchemy's own tests: its names for its queue pools become those of gcpool's pools.

In the process that runs those tests, and before it imports them.
"""

import sqlalchemy
import sqlalchemy.pool
import sqlalchemy.pool.impl

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool

# One test looks for the name in a message.
AsyncAdaptedQueuePool = type('AsyncAdaptedQueuePool', (AsyncQueuePool,), {'__module__': __name__})

for module in (sqlalchemy, sqlalchemy.pool, sqlalchemy.pool.impl):
    module.QueuePool = QueuePool  # type: ignore[attr-defined]
    module.AsyncAdaptedQueuePool = AsyncAdaptedQueuePool  # type: ignore[attr-defined]
