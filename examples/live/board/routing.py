"""The board's WebSockets."""

from django.urls import path

from board.consumers import EchoConsumer

websocket_urlpatterns = [path("ws/echo/", EchoConsumer.as_asgi())]
