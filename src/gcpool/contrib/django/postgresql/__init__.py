"""Django's backend for PostgreSQL, with :py:class:`gcpool.psycopg_pool.ConnectionPool` in place of psycopg_pool's.

Django loads :py:mod:`gcpool.contrib.django.postgresql.base` from this package.
"""
