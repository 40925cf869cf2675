"""`manage.py serve`: the production server, with the settings' own application.

All options are those of `daphne-supervisor`. The settings are checked, and then this process
becomes the server: nothing of Django may stay in the master, or a reload would not take up new
code.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, SystemCheckError

from daphne_supervisor import checks, companion, django_site
from daphne_supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Command"]

_HELP = {"-h", "--help", "--version"}


def _become(program: str, command: list[str], environ: dict[str, str]) -> None:
    os.execve(program, command, environ)  # noqa: S606 # pragma: no cover - nothing comes back


class Command(BaseCommand):  # type: ignore[misc] # Django has no types
    """The command."""

    help = (
        "Serve ASGI_APPLICATION in production. Takes the options of daphne-supervisor: serve --help"
    )
    requires_system_checks: Sequence[
        str
    ] = ()  # they need the options, and come when those are known
    become: Callable[[str, list[str], dict[str, str]], None] = staticmethod(_become)

    def run_from_argv(self, argv: list[str]) -> None:
        """Be the server; `argv` is all of the command line."""
        try:
            self.handle(*argv[2:])
        except CommandError as error:
            checked = isinstance(error, SystemCheckError)  # which has its own colours
            self.stderr.write(str(error), (lambda text: text) if checked else None)
            sys.exit(error.returncode)

    def handle(self, *arguments: str, **_: Any) -> None:
        """Check the settings, and become the server with its own options `arguments`.

        Raises `CommandError` when there is nothing to serve, or a check fails.
        """
        ours, rest = _for_django().parse_known_args(arguments)
        environ = dict(os.environ)
        if _HELP.isdisjoint(rest):
            try:
                rest = [django_site.application_path(), *rest]
            except ImproperlyConfigured as error:
                raise CommandError(str(error)) from None
            if not ours.skip_checks:
                self._check(rest)
        environ["PYTHONPATH"] = django_site.search_path(sys.argv[0], ours.pythonpath, environ)
        self.become(sys.executable, [sys.executable, "-m", "daphne_supervisor", *rest], environ)

    def _check(self, arguments: list[str]) -> None:
        """Check the settings against what is asked for. Raises `SystemCheckError`."""
        try:
            checks.consider(companion.configuration(arguments, os.environ))
        except SupervisorError:
            return  # the server says what is wrong, better than we could
        self.check(display_num_errors=True)


def _for_django() -> argparse.ArgumentParser:
    """Return what takes the options that every command of Django's has out of the others.

    Settings and search path were put into force before the command was found.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    for flag in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(flag, action="store_true")
    return parser
