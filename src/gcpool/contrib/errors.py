"""What a manager of one's own can judge an exception with, in its ``is_broken``."""

from gcpool.contrib._errors import errors_in

__all__ = ['errors_in']
