"""The options of the pools for SQLAlchemy engines: bad ones, pickled ones, those from a file."""

import importlib
import pickle
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

import sqlalchemy as sa
from sqlalchemy import exc

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool
from tests.contrib.dbapi import FakeDriver
from tests.contrib.servers import PATIENCE
from tests.support import program_environment


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


SETTINGS: dict[str, Any] = {'poolclass': QueuePool, 'pool_size': 3, 'max_overflow': 4, 'pool_timeout': 5.0}


class TestBadInput:
    @pytest.mark.parametrize('value', ['5', 5.5, None, True])
    @pytest.mark.parametrize('name', ['pool_size', 'max_overflow'])
    def test_no_number_of_connections(self, driver: FakeDriver, name: str, value: Any) -> None:
        with pytest.raises(TypeError, match=f'^{name}={value!r}: expected a number of connections as an int'):
            QueuePool(driver.connect, **{name: value})

    @pytest.mark.parametrize(('name', 'value', 'least'), [('pool_size', -1, 0), ('max_overflow', -2, -1)])
    def test_a_number_that_is_too_low(self, driver: FakeDriver, name: str, value: Any, least: int) -> None:
        with pytest.raises(exc.ArgumentError, match=f'{name}={value}: expected .*, or {least} for no limit'):
            QueuePool(driver.connect, **{name: value})

    def test_max_overflow_set_too_low_changes_nothing(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect)
        with pytest.raises(exc.ArgumentError, match='max_overflow=-2'):
            pool._max_overflow = -2
        assert pool._max_overflow == 10

    @pytest.mark.parametrize('value', ['30', True, [1]])
    def test_a_timeout_that_is_no_number(self, driver: FakeDriver, value: Any) -> None:
        with pytest.raises(TypeError, match=r'^timeout=.*: expected seconds as a number, or None for no limit'):
            QueuePool(driver.connect, timeout=value)

    @pytest.mark.parametrize('value', [-1, float('nan')])
    def test_a_timeout_out_of_range(self, driver: FakeDriver, value: float) -> None:
        with pytest.raises(ValueError, match=r'^timeout=.*: expected seconds, at least 0, or None for no limit'):
            QueuePool(driver.connect, timeout=value)

    def test_keep_idle_that_is_no_bool(self, driver: FakeDriver) -> None:
        with pytest.raises(TypeError, match=r"^keep_idle='no': expected True or False"):
            QueuePool(driver.connect, keep_idle='no')  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ('name', 'meant'),
        [
            ('max_size', 'pool_size and max_overflow, whose sum is the limit'),
            ('pool_recycle', r'recycle, which create_engine\(\) calls pool_recycle'),
            ('pool_sise', 'pool_size'),
            ('nonsense', 'one of dialect, echo, events, keep_idle, logging_name, max_overflow, pool_size, '),
        ],
    )
    def test_an_unknown_option(self, driver: FakeDriver, name: str, meant: str) -> None:
        with pytest.raises(
            TypeError, match=rf"^QueuePool\(\) got an unexpected keyword argument '{name}': expected {meant}"
        ):
            QueuePool(driver.connect, **{name: 1})  # type: ignore[arg-type]

    def test_an_unknown_option_of_create_engine(self) -> None:
        with pytest.raises(TypeError, match=r"Invalid argument\(s\) 'max_size' sent to create_engine\(\).*/QueuePool/"):
            sa.create_engine('sqlite:///a.db', poolclass=QueuePool, max_size=1)

    def test_a_reset_that_does_not_exist(self, driver: FakeDriver) -> None:
        with pytest.raises(exc.ArgumentError, match="'reset_on_return'"):
            QueuePool(driver.connect, reset_on_return='sometimes')

    def test_the_pool_of_the_other_kind_of_engine(self) -> None:
        with pytest.raises(exc.ArgumentError, match='AsyncQueuePool cannot be used with non-asyncio engine'):
            sa.create_engine('sqlite:///a.db', poolclass=AsyncQueuePool)

    def test_sqlalchemy_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, 'gcpool.contrib.sqlalchemy')
        monkeypatch.setitem(sys.modules, 'sqlalchemy', None)
        with pytest.raises(ImportError, match=r'sqlalchemy needs SQLAlchemy: pip install "gcpool\[sqlalchemy\]"'):
            importlib.import_module('gcpool.contrib.sqlalchemy')

    def test_sqlalchemy_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, 'gcpool.contrib.sqlalchemy')
        monkeypatch.setattr(sa, '__version__', '1.4.54')
        with pytest.raises(ImportError, match=r'needs SQLAlchemy 2.0 or later, but 1\.4\.54 is installed: pip'):
            importlib.import_module('gcpool.contrib.sqlalchemy')


class TestSettings:
    """What describes an engine may be pickled, and read from a file."""

    @pytest.mark.parametrize('kind', [QueuePool, AsyncQueuePool])
    def test_the_classes_are_pickled_by_their_public_names(self, kind: type[QueuePool]) -> None:
        pickled = pickle.dumps(kind)
        assert b'gcpool.contrib.sqlalchemy' in pickled
        assert pickle.loads(pickled) is kind

    def test_in_another_process(self, tmp_path: Any) -> None:
        settings = tmp_path / 'settings'
        settings.write_bytes(pickle.dumps((sa.make_url(f'sqlite:///{tmp_path}/a.db'), SETTINGS)))
        program = (
            'import pathlib, pickle, sys, sqlalchemy\n'
            'url, options = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n'
            'engine = sqlalchemy.create_engine(url, **options)\n'
            'with engine.connect(): print(type(engine.pool).__module__, engine.pool.status(), engine.pool.timeout())\n'
            'engine.dispose()\n'
        )
        result = subprocess.run(
            [sys.executable, '-W', 'error', '-c', program, settings],
            env=program_environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout == (
            'gcpool.contrib.sqlalchemy Pool size: 3  Connections in pool: 0 Current Overflow: -2 '
            'Current Checked out connections: 1 5.0\n'
        )

    def test_from_a_configuration(self, tmp_path: Any) -> None:
        configuration = {
            'sqlalchemy.url': f'sqlite:///{tmp_path}/a.db',
            'sqlalchemy.pool_size': '3',
            'sqlalchemy.max_overflow': '4',
            'sqlalchemy.pool_recycle': '7',
            'sqlalchemy.pool_use_lifo': 'true',
        }
        pool: Any = sa.engine_from_config(configuration, poolclass=QueuePool).pool
        assert (pool.size(), pool._max_overflow, pool._recycle, pool._pool.use_lifo) == (3, 4, 7, True)
