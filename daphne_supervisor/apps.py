"""The application for `INSTALLED_APPS`: two commands for `manage.py`, and the checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks as django_checks

from daphne_supervisor import checks

__all__ = ["DaphneSupervisorConfig"]


class DaphneSupervisorConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """It has no models, and reads no settings of its own."""

    name = "daphne_supervisor"
    verbose_name = "daphne-supervisor"

    def ready(self) -> None:
        """Register the checks."""
        django_checks.register(checks.check_order, django_checks.Tags.staticfiles)
        django_checks.register(checks.check_application, checks.TAG)
        django_checks.register(checks.check_channel_layers, checks.TAG)
        django_checks.register(checks.check_connections, checks.TAG)
