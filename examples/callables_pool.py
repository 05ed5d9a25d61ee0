"""A pool made from functions: threads that share a few connections to an SQLite
database.

Needs nothing but Python: python examples/callables_pool.py
"""

import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from gcpool.threading import ConnectionPool


def connect(path: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """Connect, within the time that the acquire has left."""
    return sqlite3.connect(path, timeout, check_same_thread=False)


def roll_back(_path: Path, conn: sqlite3.Connection) -> None:
    """Undo what was not committed before the next user gets the connection."""
    conn.rollback()


def main() -> None:
    # Without `dispose`, the connection's own close() is called.
    pool = ConnectionPool.from_callables(
        connect, on_release=roll_back, max_size=4
    )

    with tempfile.TemporaryDirectory() as directory, closing(pool):
        path = Path(directory) / 'notes.db'
        with pool.connection(path) as conn, conn:
            conn.execute('CREATE TABLE note (text TEXT)')

        def write(number: int) -> None:
            with pool.connection(path, timeout=30.0) as conn, conn:
                conn.execute('INSERT INTO note VALUES (?)', (f'note {number}',))

        with ThreadPoolExecutor(max_workers=16) as executor:
            for future in [
                executor.submit(write, number) for number in range(100)
            ]:
                future.result()

        with pool.connection(path) as conn:
            conn.execute('DELETE FROM note')

        with pool.connection(path) as conn:
            print(
                'notes:',
                conn.execute('SELECT count(*) FROM note').fetchone()[0],
            )

    print('connections created, at most 4:', pool.get_stats()['created'])


if __name__ == '__main__':
    main()
