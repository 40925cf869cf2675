"""The sections of the configuration that are about requests: HTTP, WebSocket, proxies."""

from __future__ import annotations

from dataclasses import fields

import pytest

from daphne_supervisor import config, config_protocols
from daphne_supervisor.config_protocols import Http, Proxy, WebSocket
from daphne_supervisor.options import options_of


@pytest.mark.parametrize("name", config_protocols.__all__)
def test_they_are_sections_like_the_others(name: str) -> None:
    """Who reads the configuration need not know in which module a section is written."""
    section = getattr(config_protocols, name)
    assert getattr(config, name) is section
    assert section in [each for _, _, each in config.SECTIONS]


@pytest.mark.parametrize("section", [Http, WebSocket, Proxy])
def test_every_field_is_an_option(section: type) -> None:
    """Nothing that steers the protocols is out of reach of the user."""
    assert [name for name, _, _ in options_of(section)] == [each.name for each in fields(section)]


@pytest.mark.parametrize("name", ["max_body_size", "max_connections", "max_inflight"])
def test_limits_that_only_the_application_knows_are_off(name: str) -> None:
    """Nothing is refused or kept waiting by a number that we have made up."""
    assert getattr(Http(), name) == 0


def test_what_protects_the_server_is_on() -> None:
    """A client cannot hold a connection or memory for ever with what nobody needs."""
    http, websocket = Http(), WebSocket()
    assert 0 < http.head_timeout < http.keep_alive
    assert http.write_timeout > 0
    assert http.body_min_rate > 0
    assert http.max_request_line >= 8000, "RFC 9112 section 3"
    assert http.max_request_line < http.max_header_size
    assert min(websocket.max_message_size, websocket.max_frame_size, websocket.max_queue) > 0
    assert min(websocket.max_fragments, websocket.compression_max_ratio) > 0
    assert websocket.ping_timeout > 0


def test_what_costs_every_connection_is_off() -> None:
    """Compression takes memory and processor time; a window for each connection takes more."""
    websocket = WebSocket()
    assert not websocket.compression
    assert not websocket.compression_context_takeover


def test_an_idle_connection_outlives_the_load_balancer_s_patience() -> None:
    """The one who closes first has to be the client, or requests are lost; 60 s are common."""
    assert Http().keep_alive > 60


def test_proxies_are_believed_on_this_machine_only_and_if_asked_for() -> None:
    """A header that anybody can send says nothing unless a proxy of ours has set it."""
    assert not Proxy().proxy_headers
    assert Proxy().forwarded_allow_ips == ("127.0.0.1", "::1", "unix")
