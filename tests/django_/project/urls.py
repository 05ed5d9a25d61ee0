from django.urls import path

from tests.django_.project import views

urlpatterns = [
    path('deposit/<str:name>', views.deposit),
    path('transfer/<str:source>/<str:target>/<int:amount>', views.transfer),
    path('balance/<str:name>', views.balance),
    path('async/balance/<str:name>', views.balance_async),
    path('async/deposit/<str:name>', views.deposit_async),
]
