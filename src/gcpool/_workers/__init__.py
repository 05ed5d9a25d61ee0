"""What works in the background for a pool: the collector of either runtime, the threads that close, a timer."""
