"""A backend that is made of Django's, as PostGIS' is."""
