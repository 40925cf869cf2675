"""Forwarding headers are believed from proxies that were declared, and from nobody else."""

from __future__ import annotations

import json
from typing import Any

from tests.support.client import Client
from tests.support.daphne import APPS, Daphne

FORWARDED = (
    "X-Forwarded-For: 192.0.2.66, 198.51.100.7, 127.0.0.1",
    "X-Forwarded-Port: 4711",
    "X-Forwarded-Proto: https",
)
IGNORED = "is ignored: its sender 127.0.0.1 is not in --forwarded-allow-ips"


def _scope(client: Client, *lines: str) -> dict[str, Any]:
    scope: dict[str, Any] = json.loads(client.get("/scope", *lines).text)
    return scope


def test_a_declared_proxy_is_believed() -> None:
    """By default one on the same machine: client and scheme are its word, read from the right."""
    with (
        Daphne(f"{APPS}:probe", "--proxy-headers") as server,
        Client(server.port) as client,
    ):
        scope = _scope(client, *FORWARDED)
        assert scope["client"] == ["198.51.100.7", 4711]
        assert scope["scheme"] == "https"
    assert "198.51.100.7:4711 - - " in server.final_log
    assert IGNORED not in server.final_log


def test_nobody_else_is_believed_and_the_log_says_so_once() -> None:
    """From an undeclared peer the headers change nothing; one warning names the option to set."""
    options = ["--proxy-headers", "--forwarded-allow-ips", "192.0.2.1"]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as client:
        for _ in range(3):
            scope = _scope(client, *FORWARDED)
            assert scope["client"] == list(client.socket.getsockname())
            assert scope["scheme"] == "http"
    assert server.final_log.count(IGNORED) == 1
    assert "x-forwarded-for is ignored" in server.final_log


def test_without_the_option_the_headers_are_only_headers() -> None:
    """Without --proxy-headers nobody is believed, and nobody warned."""
    with Daphne(f"{APPS}:probe") as server, Client(server.port) as client:
        scope = _scope(client, *FORWARDED)
        assert scope["client"] == list(client.socket.getsockname())
        assert scope["scheme"] == "http"
        assert [repr(b"x-forwarded-proto"), repr(b"https")] in scope["headers"]
    assert IGNORED not in server.final_log


def test_a_declared_proxy_sets_the_root_path() -> None:
    """Daphne-Root-Path from a declared peer is the root path, and no header any more."""
    with Daphne(f"{APPS}:probe") as server, Client(server.port) as client:
        scope = _scope(client, "Daphne-Root-Path: /caf%C3%A9")
        assert scope["root_path"] == "/café"
        assert scope["path"] == "/scope"
        assert [name for name, _ in scope["headers"]] == [repr(b"host")]


def test_nobody_else_sets_the_root_path() -> None:
    """Daphne-Root-Path from an undeclared peer is dropped, with one warning."""
    options = ["--forwarded-allow-ips", "192.0.2.1", "--root-path", "/own"]
    with Daphne(f"{APPS}:probe", *options) as server, Client(server.port) as client:
        for _ in range(3):
            scope = _scope(client, "Daphne-Root-Path: /stolen")
            assert scope["root_path"] == "/own"
            assert [name for name, _ in scope["headers"]] == [repr(b"host")]
    assert server.final_log.count(IGNORED) == 1
    assert "daphne-root-path is ignored" in server.final_log
