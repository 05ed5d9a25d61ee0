"""``python -m gcpool check``: what works at an endpoint, and what does not."""
