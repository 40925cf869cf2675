"""The files of `deploy/` with a test's own paths in them, and a real nginx that runs one."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.programs import Program
from tests.support.tools import tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Proxy", "nginx", "rendered"]

DEPLOY = Path(__file__).parents[2] / "deploy"

_MAIN = """
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A proxy that accepts connections."""

    port: int
    """The port on 127.0.0.1 where it listens."""

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self.port}"


def rendered(name: str, values: Mapping[str, str]) -> str:
    """Return the file `name` of `deploy/` with each key of `values` replaced by its value.

    Raises `AssertionError` when a key is not in the file: it has changed, and so must the test.
    """
    text = (DEPLOY / name).read_text()
    for old, new in values.items():
        assert old in text, f"deploy/{name} has no {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def nginx(folder: Path, *, upstream: str) -> Iterator[Proxy]:
    """Run `deploy/nginx.conf` in front of `upstream`, in nginx's words: `unix:/path`, `host:port`.

    nginx is handed a socket that listens already, by the way it hands its own sockets to its
    successor in an upgrade. So there is no port to guess and nothing to wait for: a client that
    connects at once waits in that socket's queue.
    """
    with ExitStack() as running:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            site = {
                "listen 80;": f"listen 127.0.0.1:{port};",
                "server unix:/run/daphne-supervisor/web.sock;": f"server {upstream};",
            }
            (folder / "site.conf").write_text(rendered("nginx.conf", site))
            (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
            program = Program(
                [tool("nginx", "nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf")],
                environment={"NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                stop=signal.SIGQUIT,
            )
            running.enter_context(program)
        yield Proxy(port)
