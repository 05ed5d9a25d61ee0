"""The demonstration behind ``python -m gcpool demo``. Nothing here is part of the library's interface."""
