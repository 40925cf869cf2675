"""A real PostgreSQL: one cluster in a temporary directory, reached through a unix socket only."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["USER", "Postgres", "postgres"]

USER = "tests"
"""The superuser of the cluster, whom it trusts: who reaches the socket is one of ours."""

_SETTINGS = {"listen_addresses": "", "fsync": "off", "max_connections": "400"}


class Postgres:
    """A running cluster; `socket` is the directory of its socket: what clients connect to."""

    def __init__(self, socket: Path) -> None:
        """Be at `socket`."""
        self.socket = socket
        self._own = psycopg.connect(
            f"host={socket} user={USER} dbname=postgres application_name=test", autocommit=True
        )

    def close(self) -> None:
        """Disconnect."""
        self._own.close()

    def count(self, name: str) -> int:
        """Return how many connections there are from applications that call themselves `name`."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        found = self._own.execute(query, (name,)).fetchone()
        assert found is not None
        return int(found[0])

    def cut(self, name: str) -> None:
        """End every connection from applications that call themselves `name`."""
        query = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        self._own.execute(query + " WHERE application_name = %s", (name,))


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a fresh cluster. Skips the test where there is none, or fails it in CI."""
    tool("pg_createcluster", "postgresql")  # Debian's own command; the server's stand elsewhere
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parts[4]))
    with tempfile.TemporaryDirectory(prefix="pg-") as directory:
        place = Path(directory)
        data = place / "data"
        if os.geteuid() == 0:  # as whom it does not run
            os.chown(place, *_nobody())
        _run([programs / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync"], place)
        settings = [f"-c {key}='{value}'" for key, value in _SETTINGS.items()]
        options = " ".join([*settings, f"-k {place}"])
        control: list[str | Path] = [programs / "pg_ctl", "-D", data, "-s"]
        _run([*control, "-w", "-l", place / "log", "-o", options, "start"], place)
        try:
            cluster = Postgres(place)
            yield cluster
            cluster.close()
        finally:
            _run([*control, "-w", "-m", "immediate", "stop"], place)


def _nobody() -> tuple[int, int]:
    found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _run(command: Sequence[str | Path], place: Path) -> None:
    user, group = _nobody() if os.geteuid() == 0 else (None, None)
    subprocess.run(
        command,
        cwd=place,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        user=user,
        group=group,
        extra_groups=[] if user is not None else None,
        stdout=subprocess.DEVNULL,
        timeout=30,
        check=True,
    )
