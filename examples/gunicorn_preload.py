"""A pool that is built and used before gunicorn forks its workers.

Two processes must not use the same connection. In each worker the pool begins
empty, opens its own connections, and leaves the parent process's connections
alone, so gunicorn's hooks are not needed.

Needs a server, and a system that can fork:
pip install gunicorn "gcpool[psycopg2]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
gunicorn --preload -w 2 --threads 8 --chdir examples gunicorn_preload:app
curl http://127.0.0.1:8000/
"""

import json
import os
from typing import TYPE_CHECKING

from gcpool.contrib.psycopg2 import DbConnectionManager
from gcpool.threading import ConnectionPool

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

pool = ConnectionPool(
    DbConnectionManager({'primary': {'dsn': os.environ['GCPOOL_EXAMPLE_DSN']}}),
    max_size=4,
    acquire_timeout=5.0,
)


def backend_pid() -> int:
    """Return the id of the server process behind a connection from the pool."""
    with pool.connection('primary') as conn, conn, conn.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        (pid,) = cursor.fetchone() or (0,)
    return int(pid)


# With --preload this runs once, before the fork. It leaves an idle connection
# in the pool of the parent process.
PRELOADED_BY = {'process': os.getpid(), 'backend': backend_pid()}


def app(
    _environ: 'WSGIEnvironment', start_response: 'StartResponse'
) -> list[bytes]:
    """Answer with the ids of the processes at both ends of each connection."""
    answer = {
        'preloaded by': PRELOADED_BY,
        'answered by': {'process': os.getpid(), 'backend': backend_pid()},
        'pool of this worker': pool.get_stats(),
    }
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps(answer).encode()]
