"""For ``is_broken`` of your own managers: what to judge an exception by."""

from gcpool.contrib._errors import errors_in

__all__ = ['errors_in']
