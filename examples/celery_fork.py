"""A pool that is made, and used, at import time, before a Celery worker forks its processes.

A connection must not be used by two processes. Each process of the worker finds the pool empty, opens connections of
its own, and leaves those of the process it was forked from alone, so nothing has to be done in Celery's signals.

Needs a system that can fork, but no broker: files in a directory do for one here. pip install celery, and then
celery --workdir examples --app celery_fork worker --concurrency 2
and in another terminal, in the same directory: python examples/celery_fork.py
"""

import atexit
import os
from pathlib import Path

from celery import Celery, group

from gcpool.contrib.sqlite3 import PooledConnection, SqliteConnectionManager, SqliteEndpoint
from gcpool.threading import ConnectionPool

DIRECTORY = Path(os.environ.get('GCPOOL_EXAMPLE_DIRECTORY', 'celery-example')).resolve()
DIRECTORY.mkdir(exist_ok=True)
DATABASE = DIRECTORY / 'numbers.db'

app = Celery('celery_fork', broker='filesystem://', backend=DIRECTORY.as_uri())
app.conf.broker_transport_options = {
    'polling_interval': 0.1,
    **{folder: str(DIRECTORY) for folder in ('data_folder_in', 'data_folder_out', 'control_folder')},
}

pool = ConnectionPool[SqliteEndpoint, PooledConnection](
    SqliteConnectionManager(pragmas={'journal_mode': 'wal'}), max_size=4, acquire_timeout=5.0
)
# With a limit: a connection that is out at the end must not hold up the exit.
atexit.register(pool.close, timeout=5.0)

# This leaves an idle connection in the pool of the process that forks.
with pool.connection(DATABASE) as conn, conn:
    conn.execute('CREATE TABLE IF NOT EXISTS numbers (number INTEGER, process INTEGER)')


@app.task
def store(number: int) -> dict[str, int]:
    """Store a number, and tell what the pool of this process has done so far."""
    with pool.connection(DATABASE) as conn, conn:
        conn.execute('INSERT INTO numbers VALUES (?, ?)', (number, os.getpid()))
    return pool.get_stats()


def main() -> None:
    results = group(store.s(number) for number in range(20)).apply_async()
    stats = results.get(timeout=60.0, interval=0.05)
    with pool.connection(DATABASE) as conn:
        print('rows and sum:', *conn.execute('SELECT count(*), sum(number) FROM numbers'))
        (processes,) = conn.execute('SELECT count(DISTINCT process) FROM numbers').fetchone()
    print('worker processes, at most 2:', processes)
    print('connections opened by each of them:', {of_process['created'] for of_process in stats})


if __name__ == '__main__':
    main()
