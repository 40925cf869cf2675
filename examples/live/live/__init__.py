"""The project: settings, URLs and the ASGI application."""
