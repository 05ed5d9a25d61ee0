"""The tests of the project, which Django's own runner runs, on a test database that it makes."""

from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

from django.db import connection, connections
from django.db.models import F
from django.test import LiveServerTestCase, TestCase, TransactionTestCase

from gcpool.psycopg_pool import ConnectionPool
from tests.django_.project.models import Account


def deposit(name: str) -> None:
    Account.objects.filter(name=name).update(balance=F('balance') + 1)
    connections.close_all()


class InTransactions(TestCase):  # type: ignore[misc]
    @classmethod
    def setUpTestData(cls) -> None:
        Account.objects.create(name='ann', balance=10)

    def test_the_test_database_is_used_by_the_pool(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute('SELECT current_database()')
            [name] = cursor.fetchone()
        assert name.startswith('test_')
        assert isinstance(connection.pool, ConnectionPool)

    def test_what_a_test_has_changed_is_rolled_back(self) -> None:
        assert self.client.get('/deposit/ann').status_code == 200
        assert Account.objects.get(name='ann').balance == 11

    def test_and_here_it_is_as_before(self) -> None:
        assert self.client.get('/balance/ann').json() == {'balance': 10}


class Committed(TransactionTestCase):  # type: ignore[misc]
    def test_threads_have_connections_of_their_own(self) -> None:
        Account.objects.create(name='bob')
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(deposit, ['bob'] * 40))
        assert Account.objects.get(name='bob').balance == 40


class Live(LiveServerTestCase):  # type: ignore[misc]
    def test_a_server_in_threads(self) -> None:
        Account.objects.create(name='cleo')
        with ThreadPoolExecutor(8) as threads:
            urls = [f'{self.live_server_url}/deposit/cleo'] * 24
            answers = list(threads.map(lambda url: urlopen(url).status, urls))
        assert answers == [200] * 24
        assert Account.objects.get(name='cleo').balance == 24
