"""The application for `INSTALLED_APPS`."""

from __future__ import annotations

import subprocess
import sys

from django.apps import apps
from django.core.checks.registry import registry
from django.core.management import get_commands

from daphne_supervisor import checks
from daphne_supervisor.apps import DaphneSupervisorConfig
from tests.support import django_settings

django_settings.configure()


def test_django_finds_it_by_the_name_of_the_package() -> None:
    """`INSTALLED_APPS = ["daphne_supervisor"]`, with commands and checks."""
    assert isinstance(apps.get_app_config("daphne_supervisor"), DaphneSupervisorConfig)
    assert checks.TAG in registry.tags_available()
    ours = {name for name, app in get_commands().items() if app == "daphne_supervisor"}
    assert ours == {"runserver", "serve"}
    known = registry.registered_checks
    assert {
        checks.check_application,
        checks.check_channel_layers,
        checks.check_connections,
        checks.check_order,
    } <= known


def test_the_package_works_without_django() -> None:
    """Nothing of Django is imported unless Django asks for it, by the test server neither."""
    code = (
        "import sys; sys.modules['django'] = None;"
        "import daphne_supervisor.cli, daphne_supervisor.testing, daphne_supervisor.pytest_plugin,"
        "daphne_supervisor.companion, daphne_supervisor.worker.main"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
