"""The same on gcpool's backend, as docs/django.md says."""
