from typing import ClassVar

from django.db import models


class Account(models.Model):  # type: ignore[misc]
    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True)
    balance = models.IntegerField(default=0)
    opened_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = 'project'
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(balance__gte=0), name='not_overdrawn')]
