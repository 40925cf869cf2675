"""The ASGI application: Django for HTTP, Channels for WebSocket."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "live.settings")
# This loads the apps, so it comes before anything that imports a model.
django_application = get_asgi_application()

from board.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": django_application,
        # Browsers send cookies with a WebSocket handshake from any page: check where it came from.
        "websocket": AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns)),
    },
)
