"""A Django project, for the tests of gcpool.contrib.django: accounts, and requests that move money between them."""
