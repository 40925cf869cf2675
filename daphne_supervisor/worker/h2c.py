"""The upgrade from HTTP/1.1 to HTTP/2 without TLS (RFC 7540 section 3.2).

RFC 9113 has dropped it, since nobody but tools uses it; they do. Pure.
"""

from __future__ import annotations

import base64
import re

from daphne_supervisor.worker.head import Head
from daphne_supervisor.worker.head_http2 import EXTENSIONS
from daphne_supervisor.worker.http2_frames import ConnectionFault, check_setting, read_settings

__all__ = ["for_http2", "upgrade_settings"]

#: Six bytes for each setting, in base64url without padding: eight digits.
_SETTINGS = re.compile(rb"(?:[A-Za-z0-9_-]{8})*")
_HOP = frozenset(
    {b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
)


def upgrade_settings(head: Head) -> list[tuple[int, int]] | None:
    """Return what `HTTP2-Settings` says, `None` if it is not a payload of SETTINGS."""
    text = head.h2c
    if text is None or not _SETTINGS.fullmatch(text):
        return None
    values = read_settings(base64.urlsafe_b64decode(text))
    try:
        for setting, value in values:
            check_setting(setting, value)
    except ConnectionFault:
        return None
    return values


def for_http2(head: Head) -> Head:
    """Return the head of the request that becomes stream 1."""
    new = Head(head.method, "2")
    new.extensions = EXTENSIONS
    new.path, new.raw_path, new.query = head.path, head.raw_path, head.query
    new.host, new.root_path, new.length = head.host, head.root_path, 0
    new.headers = [line for line in head.headers if line[0] not in _HOP]
    new.ordinary = head.method != "HEAD"
    return new
