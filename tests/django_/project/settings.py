"""The settings, of which the test gives those that it is about, as JSON in the environment."""

import json
import os

GIVEN = json.loads(os.environ['GCPOOL_DJANGO_SETTINGS'])

if GIVEN.pop('install', False):
    import gcpool.psycopg_pool

    gcpool.psycopg_pool.install()

SECRET_KEY = 'not-a-secret'
ALLOWED_HOSTS = ['*']
INSTALLED_APPS = ['tests.django_.project']
ROOT_URLCONF = 'tests.django_.project.urls'
USE_TZ = True
# The server of live tests looks at it.
STATIC_URL = 'static/'
DATABASES = {alias: {'ATOMIC_REQUESTS': True, **database} for alias, database in GIVEN.items()}
# What a pool tells of the end of a server that a test has restarted.
LOGGING = {
    'version': 1,
    'handlers': {'null': {'class': 'logging.NullHandler'}},
    'loggers': {'psycopg.pool': {'handlers': ['null'], 'propagate': False}},
}
