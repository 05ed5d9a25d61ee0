"""Threads and tasks that share a few connections to an SQLite database through
SQLAlchemy.

Needs no server: pip install "gcpool[sqlalchemy]" aiosqlite, then
python examples/sqlalchemy_pool.py
"""

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool

# SQLite has one writer at a time: seconds that the others wait.
PATIENCE = {'timeout': 30.0}
SIZE = {'pool_size': 4, 'max_overflow': 0}


class Base(orm.DeclarativeBase):
    """The classes with tables."""


class Account(Base):
    """An account with a balance."""

    __tablename__ = 'account'

    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    balance: orm.Mapped[int]


def pay(name: str, amount: int) -> sa.Update:
    return (
        sa.update(Account)
        .where(Account.name == name)
        .values(balance=Account.balance + amount)
    )


def in_threads(path: Path) -> None:
    # The argument poolclass is all that changes.
    engine = sa.create_engine(
        f'sqlite:///{path}', poolclass=QueuePool, connect_args=PATIENCE, **SIZE
    )
    Base.metadata.create_all(engine)
    make_session = orm.sessionmaker(engine)
    with make_session.begin() as session:
        session.add_all(
            [Account(name='ann', balance=1000), Account(name='bob', balance=0)]
        )

    def transfer(amount: int) -> None:
        with make_session.begin() as session:
            session.execute(pay('ann', -amount))
            session.execute(pay('bob', amount))

    with ThreadPoolExecutor(max_workers=16) as executor:
        for future in [executor.submit(transfer, 1) for _ in range(200)]:
            future.result()
    with make_session() as session:
        for account in session.scalars(
            sa.select(Account).order_by(Account.name)
        ):
            print(f'{account.name}: {account.balance}')
    print('in use at the end:', engine.pool.status().rpartition(' ')[2])
    engine.dispose()


async def in_tasks(path: Path) -> None:
    url = f'sqlite+aiosqlite:///{path}'
    engine = create_async_engine(
        url, poolclass=AsyncQueuePool, connect_args=PATIENCE, **SIZE
    )
    make_session = async_sessionmaker(engine)

    async def give_back(amount: int) -> None:
        async with make_session.begin() as session:
            await session.execute(pay('bob', -amount))
            await session.execute(pay('ann', amount))

    await asyncio.gather(*[give_back(1) for _ in range(100)])
    async with make_session() as session:
        print(
            'ann has again:',
            await session.scalar(
                sa.select(Account.balance).where(Account.name == 'ann')
            ),
        )
    await engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'accounts.db'
        in_threads(path)
        asyncio.run(in_tasks(path))


if __name__ == '__main__':
    main()
