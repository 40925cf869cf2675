"""The app's entry for INSTALLED_APPS."""

from django.apps import AppConfig


class BoardConfig(AppConfig):
    """The board, with nothing to set up."""

    name = "board"
