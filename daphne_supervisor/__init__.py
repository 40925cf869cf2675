"""A pre-forking supervisor that serves ASGI applications from several worker processes."""

__all__ = ["__version__"]

__version__ = "0.1.0"
