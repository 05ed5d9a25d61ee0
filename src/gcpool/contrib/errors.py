"""For ``is_broken`` of your own managers: the errors that an exception contains."""

from gcpool.contrib._errors import errors_in

__all__ = ['errors_in']
