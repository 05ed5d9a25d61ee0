"""It asks the server for a type with each connection that it takes, as PostGIS' does, and knows nothing of gcpool."""

from typing import Any

from django.db.backends.postgresql import base
from psycopg.types import TypeInfo


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc]  # Django has no types
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        info = TypeInfo.fetch(connection, 'box')
        assert info is not None
        info.register(connection)
        return connection
