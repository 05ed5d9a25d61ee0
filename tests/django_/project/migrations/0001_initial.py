from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            'Account',
            [
                ('id', models.BigAutoField(primary_key=True)),
                ('name', models.CharField(max_length=100, unique=True)),
                ('balance', models.IntegerField(default=0)),
                ('opened_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={'constraints': [models.CheckConstraint(condition=models.Q(balance__gte=0), name='not_overdrawn')]},
        )
    ]
