"""The environment of a WSGI application: PEP 3333, key by key."""

from __future__ import annotations

import io
import sys
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import check_environ

import pytest

from daphne_supervisor.worker.wsgi_environ import FileWrapper, environ_of


def scope(**changes: Any) -> dict[str, Any]:
    """Return the scope of a plain request, with `changes`."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=1",
        "root_path": "",
        "headers": [(b"host", b"example.org")],
        "client": ["192.0.2.1", 4711],
        "server": ["127.0.0.1", 8000],
        **changes,
    }


def environ(length: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the environment for that."""
    return environ_of(scope(**changes), io.BytesIO(bytes(length)), length)


def test_what_a_plain_request_becomes() -> None:
    """Everything that PEP 3333 asks for, and nothing that it forbids."""
    made = environ()
    check_environ(made)
    body = made.pop("wsgi.input")
    assert body.read() == b""
    assert made == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "x=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4711",
        "HTTP_HOST": "example.org",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    defaults: dict[str, Any] = {}
    setup_testing_defaults(defaults)
    assert defaults.keys() <= made.keys() | {"wsgi.input"}


@pytest.mark.parametrize(
    ("root", "raw", "path"),
    [
        ("", b"/a", "/a"),
        ("/site", b"/a", "/a"),
        ("/site", b"/site/a", "/a"),
        ("/site", b"/site", ""),
        ("/site", b"/sites/a", "/sites/a"),
        ("/caf\xe9", b"/caf%C3%A9/x", "/x"),
        ("", b"/caf%C3%A9", "/caf\xc3\xa9"),
        ("", b"/%ff%2F", "/\xff/"),
    ],
)
def test_paths_are_bytes_in_the_form_of_characters(root: str, raw: bytes, path: str) -> None:
    """Also those that are no UTF-8; the root is left out of a path that begins with it."""
    made = environ(root_path=root, raw_path=raw)
    assert made["PATH_INFO"] == path
    assert made["SCRIPT_NAME"] == root.encode().decode("latin-1")


def test_headers() -> None:
    """Repeated ones are joined, cookies as cookies are; type and length have no prefix."""
    made = environ(
        3,
        headers=[
            (b"x-two", b"1"),
            (b"x-two", b"\xe9"),
            (b"cookie", b"a=b"),
            (b"cookie", b"c=d"),
            (b"content-type", b"a/b"),
            (b"content-length", b"3"),
        ],
    )
    assert made["HTTP_X_TWO"] == "1,\xe9"
    assert made["HTTP_COOKIE"] == "a=b; c=d"
    assert made["CONTENT_TYPE"] == "a/b"
    assert made["CONTENT_LENGTH"] == "3"


@pytest.mark.parametrize("length", [0, 5])
def test_a_body_in_chunks_has_a_length_when_it_is_here(length: int) -> None:
    """An application of WSGI reads as much as it is told."""
    made = environ(length, headers=[(b"transfer-encoding", b"chunked")])
    assert made["CONTENT_LENGTH"] == str(length)
    assert "HTTP_TRANSFER_ENCODING" not in made


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        (b"example.org", "http", "example.org", "80"),
        (b"example.org", "https", "example.org", "443"),
        (b"example.org:8080", "http", "example.org", "8080"),
        (b"[::1]", "http", "[::1]", "80"),
        (b"[::1]:81", "http", "[::1]", "81"),
        (None, "http", "localhost", "80"),
    ],
)
def test_on_a_unix_socket_the_client_says_how_we_are_called(
    host: bytes | None, scheme: str, name: str, port: str
) -> None:
    """The two keys must not be empty (PEP 3333); who is there has no address."""
    headers = [] if host is None else [(b"host", host)]
    made = environ(server=None, client=None, scheme=scheme, headers=headers)
    check_environ(made)
    assert (made["SERVER_NAME"], made["SERVER_PORT"]) == (name, port)
    assert made["REMOTE_ADDR"] == ""
    assert "REMOTE_PORT" not in made


def test_a_file_can_be_read_in_blocks() -> None:
    """Where nobody sends it out of its descriptor; it is closed with what wraps it."""
    file = io.BytesIO(b"12345")
    wrapper = FileWrapper(file, 2)
    assert list(wrapper) == [b"12", b"34", b"5"]
    wrapper.close()
    assert file.closed


def test_what_cannot_be_closed_is_not() -> None:
    """PEP 3333 asks for `read` only."""

    class Readable:
        def read(self, size: int) -> bytes:
            return b""[:size]

    wrapper = FileWrapper(Readable())  # type: ignore[arg-type]
    assert list(wrapper) == []
    assert not hasattr(wrapper, "close")
