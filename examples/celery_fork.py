"""A pool that is built and used at import time, before a Celery worker forks
its processes.

Two processes must not use the same connection. In each worker process the pool
begins empty, opens its own connections, and leaves the parent process's
connections alone, so Celery's signals are not needed.

Needs a system that can fork, but no broker: a directory of files serves as one.
pip install celery, then
celery --workdir examples --app celery_fork worker --concurrency 2
and in another terminal, in the same directory: python examples/celery_fork.py
"""

import atexit
import os
from pathlib import Path

from celery import Celery, group

from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.threading import ConnectionPool

DIRECTORY = Path(
    os.environ.get('GCPOOL_EXAMPLE_DIRECTORY', 'celery-example')
).resolve()
DIRECTORY.mkdir(exist_ok=True)
DATABASE = DIRECTORY / 'numbers.db'

app = Celery('celery_fork', broker='filesystem://', backend=DIRECTORY.as_uri())
app.conf.broker_transport_options = {
    'polling_interval': 0.1,
    **{
        folder: str(DIRECTORY)
        for folder in ('data_folder_in', 'data_folder_out', 'control_folder')
    },
}

pool = ConnectionPool(
    SqliteConnectionManager(pragmas={'journal_mode': 'wal'}),
    max_size=4,
    acquire_timeout=5.0,
)
# With a timeout, so that a connection still in use does not delay the exit for
# long.
atexit.register(pool.close, timeout=5.0)

# This leaves an idle connection in the pool of the parent process.
with pool.connection(DATABASE) as conn, conn:
    conn.execute(
        'CREATE TABLE IF NOT EXISTS numbers (number INTEGER, process INTEGER)'
    )


@app.task
def store(number: int) -> dict[str, int]:
    """Store a number, and return the statistics of this process's pool."""
    with pool.connection(DATABASE) as conn, conn:
        conn.execute('INSERT INTO numbers VALUES (?, ?)', (number, os.getpid()))
    return pool.get_stats()


def main() -> None:
    results = group(store.s(number) for number in range(20)).apply_async()
    stats = results.get(timeout=60.0, interval=0.05)
    with pool.connection(DATABASE) as conn:
        print(
            'rows and sum:',
            *conn.execute('SELECT count(*), sum(number) FROM numbers'),
        )
        (processes,) = conn.execute(
            'SELECT count(DISTINCT process) FROM numbers'
        ).fetchone()
    print('worker processes, at most 2:', processes)
    print(
        'connections opened by each process:',
        {of_process['created'] for of_process in stats},
    )


if __name__ == '__main__':
    main()
