"""The pools for SQLAlchemy in what programs use it with: Alembic, Flask-SQLAlchemy, a FastAPI service."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool

REQUESTS = 40
CLIENTS = 8


# -- Alembic ----------------------------------------------------------------------------------------------------------

ENVIRONMENT = """
from alembic import context
from sqlalchemy import engine_from_config
from gcpool.contrib.sqlalchemy import QueuePool

options = context.config.get_section(context.config.config_ini_section)
engine = engine_from_config(options, prefix='sqlalchemy.', poolclass=QueuePool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
context.config.attributes['seen'].append(engine.pool.status())
engine.dispose()
"""

ASYNC_ENVIRONMENT = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import async_engine_from_config
from gcpool.contrib.sqlalchemy import AsyncQueuePool

def run(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    options = context.config.get_section(context.config.config_ini_section)
    engine = async_engine_from_config(options, prefix='sqlalchemy.', poolclass=AsyncQueuePool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    context.config.attributes['seen'].append(engine.pool.status())
    await engine.dispose()

asyncio.run(main())
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down_revision!r}

def upgrade():
    op.create_table({table!r}, sa.Column('id', sa.Integer, primary_key=True))

def downgrade():
    op.drop_table({table!r})
"""


@pytest.mark.parametrize(('driver', 'environment'), [('pysqlite', ENVIRONMENT), ('aiosqlite', ASYNC_ENVIRONMENT)])
def test_alembic(tmp_path: Path, driver: str, environment: str) -> None:
    command: Any = pytest.importorskip('alembic.command')
    config_class: Any = pytest.importorskip('alembic.config').Config
    if driver != 'pysqlite':
        pytest.importorskip(driver)
    versions = tmp_path / 'migrations' / 'versions'
    versions.mkdir(parents=True)
    (versions.parent / 'env.py').write_text(environment)
    (versions.parent / 'script.py.mako').write_text('')
    for revision, down_revision, table in (('a1', None, 'ann'), ('b2', 'a1', 'bob')):
        text = MIGRATION.format(revision=revision, down_revision=down_revision, table=table)
        (versions / f'{revision}.py').write_text(text)
    seen: list[str] = []
    config = config_class(attributes={'seen': seen})
    config.set_main_option('script_location', str(versions.parent))
    config.set_main_option('path_separator', 'os')
    config.set_main_option('sqlalchemy.url', f'sqlite+{driver}:///{tmp_path}/a.db')
    config.set_main_option('sqlalchemy.pool_size', '2')

    def tables() -> set[str]:
        engine = sa.create_engine(f'sqlite:///{tmp_path}/a.db', poolclass=QueuePool)
        names = set(sa.inspect(engine).get_table_names())
        engine.dispose()
        return names

    command.upgrade(config, 'head')
    assert tables() == {'alembic_version', 'ann', 'bob'}
    command.downgrade(config, 'a1')
    assert tables() == {'alembic_version', 'ann'}
    status = 'Pool size: 2  Connections in pool: 1 Current Overflow: -1 Current Checked out connections: 0'
    assert seen == [status] * 2


# -- Flask-SQLAlchemy -------------------------------------------------------------------------------------------------


def test_flask_sqlalchemy(tmp_path: Path) -> None:
    flask: Any = pytest.importorskip('flask')
    flask_sqlalchemy: Any = pytest.importorskip('flask_sqlalchemy')
    app = flask.Flask(__name__)
    app.config['SQLALCHEMY_DATABASE_URI'] = f'sqlite:///{tmp_path}/visits.db'
    app.config['SQLALCHEMY_ENGINE_OPTIONS'] = {'poolclass': QueuePool, 'pool_size': 2, 'max_overflow': 1}
    db = flask_sqlalchemy.SQLAlchemy(app)
    visits = sa.Table(
        'visits', db.metadata, sa.Column('name', sa.String(20), primary_key=True), sa.Column('n', sa.Integer)
    )

    @app.post('/visits/<name>')  # type: ignore[untyped-decorator]
    def visit(name: str) -> Any:
        # One statement, which SQLite's lock makes atomic.
        db.session.execute(sa.update(visits).where(visits.c.name == name).values(n=visits.c.n + 1))
        db.session.commit()
        return {'checked out': db.engine.pool.checkedout()}

    with app.app_context():
        db.create_all()
        db.session.execute(sa.insert(visits).values(name='ann', n=0))
        db.session.commit()
        pool = db.engine.pool
        assert type(pool) is QueuePool

    def ask(_number: int) -> int:
        with app.test_client() as client:
            answer = client.post('/visits/ann')
            assert answer.status_code == 200
            checked_out: int = answer.get_json()['checked out']
            return checked_out

    with ThreadPoolExecutor(CLIENTS) as executor:
        assert max(executor.map(ask, range(REQUESTS))) <= 3
    with app.app_context():
        assert db.session.scalar(sa.select(visits.c.n)) == REQUESTS
        db.session.remove()
        # The connections of each request have come back at its end.
        assert (pool.checkedout(), pool.checkedin() <= 2) == (0, True)
        db.engine.dispose()


# -- FastAPI ----------------------------------------------------------------------------------------------------------


class Base(orm.DeclarativeBase):
    pass


class Visit(Base):
    __tablename__ = 'visits'

    name: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    count: orm.Mapped[int] = orm.mapped_column(default=0)


def make_service(database: Path) -> Any:
    """A service whose engine lives as long as it does."""
    fastapi: Any = pytest.importorskip('fastapi')

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        engine = create_async_engine(
            f'sqlite+aiosqlite:///{database}', poolclass=AsyncQueuePool, pool_size=2, max_overflow=0
        )
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        app.state.pool = engine.pool
        app.state.session = async_sessionmaker(engine)
        yield
        await engine.dispose()

    app = fastapi.FastAPI(lifespan=lifespan)

    async def session() -> AsyncIterator[AsyncSession]:
        async with app.state.session() as opened:
            yield opened

    dependency = fastapi.Depends(session)

    async def visit(name: str, session: AsyncSession = dependency) -> dict[str, int]:
        await session.execute(sa.update(Visit).where(Visit.name == name).values(count=Visit.count + 1))
        await session.commit()
        return {'checked out': app.state.pool.checkedout()}

    app.post('/visits/{name}')(visit)
    return app


async def ask(app: Any, path: str) -> Any:
    """Send a request to an application of this process; what it answers."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {'type': 'http.request', 'body': b''}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {'type': 'http', 'method': 'POST', 'path': path, 'headers': [], 'query_string': b'', 'http_version': '1.1'}
    await app(scope, receive, send)
    assert sent[0]['status'] == 200
    return json.loads(b''.join(message.get('body', b'') for message in sent[1:]))


def test_fastapi(tmp_path: Path) -> None:
    pytest.importorskip('aiosqlite')
    app = make_service(tmp_path / 'visits.db')

    async def main() -> None:
        async with app.router.lifespan_context(app):
            async with app.state.session.begin() as session:
                session.add(Visit(name='ann'))
            answers = await asyncio.gather(*[ask(app, '/visits/ann') for _ in range(REQUESTS)])
            assert max(answer['checked out'] for answer in answers) <= 2
            async with app.state.session() as session:
                assert await session.scalar(sa.select(Visit.count)) == REQUESTS
            assert (app.state.pool.checkedout(), app.state.pool.checkedin()) == (0, 2)
        assert app.state.pool.checkedin() == 0

    asyncio.run(main())
