"""How a channel layer's message becomes bytes, and a message again.

A message is a dict of strings, bytes, numbers, lists, dicts with strings as keys, booleans and None
(the specification of channel layers, "Message Format", in the documentation of Channels); a tuple
arrives as a list. msgpack is used where it is installed, which it is with autobahn on CPython: it
is small, fast, carries bytes and makes nothing but data. Otherwise it is JSON, in which bytes are
written as an object with one odd key. pickle runs
whatever the bytes tell it to, and marshal may crash the interpreter.
"""

from __future__ import annotations

import base64
import functools
import importlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["fastest", "json_pack", "json_unpack", "pack", "unpack"]

_ESCAPE = "\0"
_BYTES = "\0b"
"""The key of an object that stands for bytes. Keys that begin as it does are escaped."""


def _wrapped(value: Any) -> Any:
    """Return `value` as JSON can say it. Raises `TypeError`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_wrapped(one) for one in value]
    if isinstance(value, dict):
        return {_escaped(key): _wrapped(one) for key, one in value.items()}
    return value


def _escaped(key: Any) -> str:
    if not isinstance(key, str):
        message = f"the keys of a message are strings, not {type(key).__name__}"
        raise TypeError(message)
    return _ESCAPE + key if key.startswith(_ESCAPE) else key


def _unwrapped(value: dict[str, Any]) -> Any:
    """Return what an object in JSON stands for; what is in it is unwrapped already."""
    if _BYTES in value:
        return base64.b64decode(value[_BYTES])
    return {key.removeprefix(_ESCAPE): one for key, one in value.items()}


def json_pack(message: dict[str, Any]) -> bytes:
    """Return `message` in JSON. Raises `TypeError` or `ValueError` for what cannot be carried."""
    return json.dumps(_wrapped(message), separators=(",", ":")).encode()


def json_unpack(data: bytes) -> dict[str, Any]:
    """Return what `json_pack` was given."""
    found: dict[str, Any] = json.loads(data, object_hook=_unwrapped)
    return found


def fastest(
    load: Callable[[str], Any] = importlib.import_module,
) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return how to pack and to unpack; `load` imports a module, and is for tests."""
    try:
        msgpack = load("msgpack")
    except ImportError:
        return json_pack, json_unpack
    return msgpack.packb, functools.partial(msgpack.unpackb, strict_map_key=False)


pack, unpack = fastest()
