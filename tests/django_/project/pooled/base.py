from gcpool.contrib.django.postgresql import base as pooled
from tests.django_.project.derived import base as derived


class DatabaseWrapper(pooled.DatabaseWrapper, derived.DatabaseWrapper):
    """A connection of the derived backend, from gcpool's pool."""
