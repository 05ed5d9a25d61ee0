"""The parts of ``gcpool.monitor``, and those that it shares with the exporters of ``gcpool.contrib``."""
