"""The environment of a WSGI application, made from a scope (PEP 3333). Pure."""

from __future__ import annotations

import sys
from typing import IO, Any
from urllib.parse import unquote_to_bytes

__all__ = ["FileWrapper", "environ_of"]

_DEFAULT_PORTS = {"http": "80", "https": "443"}


class FileWrapper:
    """What PEP 3333 calls `wsgi.file_wrapper`: an application returns a file to be sent."""

    def __init__(self, file: IO[bytes], block_size: int = 65_536) -> None:
        """Send `file`, if need be in blocks of `block_size` bytes."""
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> FileWrapper:
        """Be read where the file has no descriptor."""
        return self

    def __next__(self) -> bytes:
        """Return the next block."""
        block = self.file.read(self.block_size)
        if not block:
            raise StopIteration
        return block


def environ_of(scope: dict[str, Any], body: IO[bytes], length: int) -> dict[str, Any]:
    """Return the environment for an `http` scope whose whole body, of `length` bytes, is `body`.

    Text is as PEP 3333 wants it: bytes, each a character. A body that came in chunks has a length
    like any other, since it is here.
    """
    root = scope["root_path"].encode().decode("latin-1")
    path = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"}:
        path = path[len(root) :]
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root,
        "PATH_INFO": path,
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if scope["client"]:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, scope["client"])
    _add_headers(environ, scope["headers"])
    _add_server(environ, scope)
    if length or "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
        environ["CONTENT_LENGTH"] = str(length)
        environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _add_headers(environ: dict[str, Any], headers: list[tuple[bytes, bytes]]) -> None:
    """Add the header fields; those that are repeated are one value (RFC 9110 section 5.3)."""
    for name, value in headers:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text


def _add_server(environ: dict[str, Any], scope: dict[str, Any]) -> None:
    """Add where the request came in; of a unix socket only the client can say how it is called."""
    if scope["server"]:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = map(str, scope["server"])
        return
    host = environ.get("HTTP_HOST", "")
    name, colon, port = host.rpartition(":")
    if not (colon and port.isdigit()):
        name, port = host, _DEFAULT_PORTS[scope["scheme"]]
    environ["SERVER_NAME"], environ["SERVER_PORT"] = name or "localhost", port
