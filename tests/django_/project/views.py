"""Each request is a transaction (ATOMIC_REQUESTS), but for the asynchronous ones, for which Django has none."""

from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.db.models import F
from django.http import HttpRequest, JsonResponse

from tests.django_.project.models import Account


def deposit(request: HttpRequest, name: str) -> JsonResponse:
    Account.objects.filter(name=name).update(balance=F('balance') + 1)
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        [session] = cursor.fetchone()
    return JsonResponse({'session': session, 'in_transaction': connection.in_atomic_block})


def transfer(request: HttpRequest, source: str, target: str, amount: int) -> JsonResponse:
    Account.objects.filter(name=target).update(balance=F('balance') + amount)
    # Fails if the source would be overdrawn. Then nothing may have been deposited.
    Account.objects.filter(name=source).update(balance=F('balance') - amount)
    return JsonResponse({})


def balance(request: HttpRequest, name: str) -> JsonResponse:
    return JsonResponse({'balance': Account.objects.get(name=name).balance})


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
async def balance_async(request: HttpRequest, name: str) -> JsonResponse:
    account = await Account.objects.aget(name=name)
    return JsonResponse({'balance': account.balance})


@transaction.non_atomic_requests  # type: ignore[untyped-decorator]
async def deposit_async(request: HttpRequest, name: str) -> JsonResponse:
    def in_thread() -> None:
        with transaction.atomic():
            account = Account.objects.select_for_update().get(name=name)
            account.balance += 1
            account.save()

    await sync_to_async(in_thread)()
    return JsonResponse({})
