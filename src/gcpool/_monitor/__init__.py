"""The inside of ``gcpool.monitor``, and what the exporters of ``gcpool.contrib`` share with it."""
