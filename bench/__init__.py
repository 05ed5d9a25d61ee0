"""The benchmark suite: ``python -m bench`` compares, ``pytest bench`` measures case by case. See README.md."""
