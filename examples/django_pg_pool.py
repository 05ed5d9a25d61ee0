"""Django on a pool of gcpool, here without a project: in a project, DATABASES
is in the settings.

Needs a server: pip install "gcpool[django]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/django_pg_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connection, models, transaction

server = urlsplit(os.environ['GCPOOL_EXAMPLE_DSN'])

settings.configure(
    DATABASES={
        'default': {
            'ENGINE': 'gcpool.contrib.django.postgresql',
            'HOST': server.hostname,
            'PORT': server.port,
            'USER': server.username,
            'PASSWORD': server.password,
            'NAME': server.path.strip('/'),
            'CONN_HEALTH_CHECKS': True,
            'OPTIONS': {'pool': {'min_size': 2, 'max_size': 4, 'timeout': 10}},
        }
    }
)
django.setup()


class Number(models.Model):  # type: ignore[misc]
    """A row of a table."""

    number = models.IntegerField()

    class Meta:
        """The application that the model belongs to."""

        app_label = 'gcpool_example'


def insert(number: int) -> None:
    try:
        with transaction.atomic():
            Number.objects.create(number=number)
    finally:
        # Returns the connection. At the end of a request Django does this
        # itself.
        connection.close()


def main() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Number)
    with ThreadPoolExecutor(max_workers=12) as executor:
        list(executor.map(insert, range(100)))
    print(
        'rows and sum:',
        Number.objects.count(),
        Number.objects.aggregate(models.Sum('number'))['number__sum'],
    )
    with connection.schema_editor() as editor:
        editor.delete_model(Number)
    connection.close()

    stats = connection.pool.get_stats()
    print('requests:', stats['requests_num'])
    print('connections created, at most 4:', stats['connections_num'])
    connection.close_pool()


if __name__ == '__main__':
    main()
