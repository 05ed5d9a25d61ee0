"""psycopg, or an error that says how to get it. Imported before all that needs psycopg or its dependencies."""

__all__ = ['OPERATIONAL_ERROR']

OLDEST_PSYCOPG = (3, 2)

try:
    import psycopg
except ImportError as exc:
    raise ImportError(
        "gcpool.psycopg_pool needs psycopg 3, which cannot be imported: pip install 'gcpool[psycopg]'"
    ) from exc

if tuple(map(int, psycopg.__version__.split('.')[:2])) < OLDEST_PSYCOPG:
    raise ImportError(
        f'gcpool.psycopg_pool needs psycopg 3.2 or newer, and this is {psycopg.__version__}: '
        "pip install 'gcpool[psycopg]'"
    )

OPERATIONAL_ERROR = psycopg.OperationalError
