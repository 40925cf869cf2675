"""Whether a server answers rightly: asked once before it is measured."""

from __future__ import annotations

import http.client
import ssl
from contextlib import closing

import httpx

from benchmarks import client
from benchmarks.application import CHUNK, CHUNKS, HELLO

__all__ = [
    "WrongAnswer",
    "echo",
    "hello",
    "hello_http2",
    "hello_tls",
    "stream",
    "websocket_binary",
    "websocket_text",
]

PATIENCE = 10.0
"""Seconds for one answer."""
_OK = 200
_NAMED = ("Date", "Server")
_BODY = bytes(range(256)) * 40


class WrongAnswer(Exception):
    """The server does not do what the scenario asks of it, so there is nothing to compare."""


def hello(port: int) -> list[str]:
    """Return remarks on the answer to `GET /`."""
    return _ask(_plain(port), "GET", "/", None, HELLO)


def hello_tls(port: int) -> list[str]:
    """Return remarks on the answer to `GET /` over TLS."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate was made a moment ago, by us
    context.set_alpn_protocols(["http/1.1"])
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context)
    return _ask(connection, "GET", "/", None, HELLO)


def hello_http2(port: int) -> list[str]:
    """Return remarks on the answer to `GET /` over HTTP/2."""
    with httpx.Client(http2=True, verify=False, timeout=PATIENCE) as asking:  # noqa: S501 - ours, made a moment ago
        answer = asking.get(f"https://127.0.0.1:{port}/")
    if answer.http_version != "HTTP/2" or answer.status_code != _OK or answer.content != HELLO:
        message = f"{answer.http_version} {answer.status_code} {answer.content[:80]!r}"
        raise WrongAnswer(message)
    return [f"no {name} header" for name in _NAMED if name not in answer.headers]


def echo(port: int) -> list[str]:
    """Return remarks on the answer to `POST /echo`."""
    return _ask(_plain(port), "POST", "/echo", _BODY, _BODY)


def stream(port: int) -> list[str]:
    """Return remarks on the answer to `GET /stream`."""
    return _ask(_plain(port), "GET", "/stream", None, CHUNK * CHUNKS)


def websocket_text(port: int) -> list[str]:
    """Return remarks on a WebSocket that is sent a text."""
    return _converse(port, ("m" * 32).encode(), text=True)


def websocket_binary(port: int) -> list[str]:
    """Return remarks on a WebSocket that is sent 10 KiB."""
    return _converse(port, _BODY, text=False)


def _plain(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    wanted: bytes,
) -> list[str]:
    with closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        got = answer.read()
        if answer.status != _OK or got != wanted:
            message = f"{method} {path}: {answer.status}, {len(got)} bytes, {got[:80]!r}"
            raise WrongAnswer(message)
        return [f"no {name} header" for name in _NAMED if answer.getheader(name) is None]


def _converse(port: int, payload: bytes, *, text: bool) -> list[str]:
    sent = client.frame(payload, text=text)
    # A server's frame is not masked: the same head without the bit and the key.
    head = sent[: len(sent) - len(payload) - 4]
    wanted = bytes([head[0], head[1] & 0x7F]) + head[2:] + payload
    with client.open_websocket(port) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall(sent)
        got = b""
        while len(got) < len(wanted):
            received = connection.recv(65536)
            if not received:
                break
            got += received
    if got != wanted:
        message = f"echo of {len(payload)} bytes: {len(got)} bytes, {got[:80]!r}"
        raise WrongAnswer(message)
    return []
