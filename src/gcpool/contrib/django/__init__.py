"""Django's database backends with gcpool's pools. In the settings: ``'ENGINE': 'gcpool.contrib.django.postgresql'``."""
