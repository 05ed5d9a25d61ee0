"""A Flask service whose threads share a few connections to an SQLite database.

Needs no server: pip install flask, then python examples/flask_service.py [PORT]
curl -X POST http://127.0.0.1:8000/visits/ann
"""

import os
import signal
import sys

from flask import Flask
from flask.typing import ResponseReturnValue

from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool

DATABASE = os.environ.get('GCPOOL_EXAMPLE_DATABASE', 'visits.db')

app = Flask(__name__)
# The pool opens nothing before the first request, so building it at import
# costs nothing.
pool = ConnectionPool(
    SqliteConnectionManager(pragmas={'journal_mode': 'wal'}),
    max_size=4,
    acquire_timeout=5.0,
)


@app.errorhandler(PoolTimeout)
def unavailable(exc: PoolTimeout) -> ResponseReturnValue:
    """Answer that no connection is available now. Only the log says why,
    because the message names the database.
    """
    app.logger.warning('request refused: %s', exc)
    return {'error': 'no connection to the database'}, 503, {'Retry-After': '1'}


@app.post('/visits/<name>')
def visit(name: str) -> ResponseReturnValue:
    """Count a visit."""
    # The connection is returned before the response is built and sent.
    with pool.connection(DATABASE) as conn, conn:
        (count,) = conn.execute(
            'INSERT INTO visits VALUES (?, 1) ON CONFLICT (name)'
            ' DO UPDATE SET count = count + 1 RETURNING count',
            (name,),
        ).fetchone()
    return {'name': name, 'visits': count}


@app.get('/visits/<name>')
def visits(name: str) -> ResponseReturnValue:
    """Return the number of visits."""
    with pool.connection(DATABASE) as conn:
        row = conn.execute(
            'SELECT count FROM visits WHERE name = ?', (name,)
        ).fetchone()
    return {'name': name, 'visits': row[0] if row else 0}


@app.get('/pool')
def pool_stats() -> ResponseReturnValue:
    """Return the pool's statistics."""
    return dict(pool.get_stats())


def main() -> None:
    # SIGTERM ends the service like Ctrl-C, so that the pool is closed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pool.connection(DATABASE) as conn:
            conn.execute(
                'CREATE TABLE IF NOT EXISTS visits'
                ' (name TEXT PRIMARY KEY, count INTEGER NOT NULL)'
            )
        app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    finally:
        # With a timeout, so that an unfinished request does not delay the exit
        # for long.
        pool.close(timeout=5.0)


if __name__ == '__main__':
    main()
