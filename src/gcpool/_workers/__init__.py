"""The background work of a pool: the collector of either runtime, the threads that close, timers."""
