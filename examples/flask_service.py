"""A Flask service whose threads share a few connections to an SQLite database.

Needs no server: pip install flask, and then python examples/flask_service.py [PORT]
curl -X POST http://127.0.0.1:8000/visits/ann
"""

import os
import signal
import sys

from flask import Flask
from flask.typing import ResponseReturnValue

from gcpool.contrib.sqlite3 import PooledConnection, SqliteConnectionManager, SqliteEndpoint
from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool

DATABASE = os.environ.get('GCPOOL_EXAMPLE_DATABASE', 'visits.db')

app = Flask(__name__)
# Nothing is opened before the first request: making a pool costs nothing, also where the module is only imported.
pool = ConnectionPool[SqliteEndpoint, PooledConnection](
    SqliteConnectionManager(pragmas={'journal_mode': 'wal'}), max_size=4, acquire_timeout=5.0
)


@app.errorhandler(PoolTimeout)
def unavailable(exc: PoolTimeout) -> ResponseReturnValue:
    """Answer that there is no connection to be had now. Why is for the log: the message names the database."""
    app.logger.warning('a request is refused: %s', exc)
    return {'error': 'no connection to the database'}, 503, {'Retry-After': '1'}


@app.post('/visits/<name>')
def visit(name: str) -> ResponseReturnValue:
    """Count a visit."""
    # Not for the whole request: the connection goes back before the answer is made and sent.
    with pool.connection(DATABASE) as conn, conn:
        (count,) = conn.execute(
            'INSERT INTO visits VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET count = count + 1 RETURNING count',
            (name,),
        ).fetchone()
    return {'name': name, 'visits': count}


@app.get('/visits/<name>')
def visits(name: str) -> ResponseReturnValue:
    """How many visits there were."""
    with pool.connection(DATABASE) as conn:
        row = conn.execute('SELECT count FROM visits WHERE name = ?', (name,)).fetchone()
    return {'name': name, 'visits': row[0] if row else 0}


@app.get('/pool')
def pool_stats() -> ResponseReturnValue:
    """What the pool says of itself."""
    return dict(pool.get_stats())


def main() -> None:
    # What ends a service from outside ends it as Ctrl-C does, so that the pool is closed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pool.connection(DATABASE) as conn:
            conn.execute('CREATE TABLE IF NOT EXISTS visits (name TEXT PRIMARY KEY, count INTEGER NOT NULL)')
        app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
    finally:
        # With a limit: a request that has not ended must not hold up the exit.
        pool.close(timeout=5.0)


if __name__ == '__main__':
    main()
