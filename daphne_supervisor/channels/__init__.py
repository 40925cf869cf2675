"""A channel layer for Django Channels that needs nothing but the master (docs/channels.md)."""

from daphne_supervisor.channels.layer import LocalChannelLayer

__all__ = ["LocalChannelLayer"]
