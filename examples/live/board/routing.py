"""The board's WebSockets."""

from django.urls import path

from board.consumers import ChatConsumer

websocket_urlpatterns = [path("ws/chat/", ChatConsumer.as_asgi())]
