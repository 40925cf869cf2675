"""The notation in which the cases of `tests/conformance/http2` write frames, made into bytes.

The words are explained in `tests/conformance/README.md`. A word that is not known is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.http2_frames import PREFACE, Code, Flag, Setting, Type, block, frame, settings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["octets", "step"]

_PLACE = {"frame", "stream", "flags", "pad", "pad_length", "length", "reserved"}
#: The words that say what a frame contains, for each type, and those for any.
_CONTENT = {
    "DATA": {"data"},
    "HEADERS": {"fields", "block", "depends", "weight", "exclusive"},
    "PRIORITY": {"depends", "weight", "exclusive"},
    "RST_STREAM": {"code"},
    "SETTINGS": {"settings"},
    "PUSH_PROMISE": {"fields", "promised"},
    "PING": {"data"},
    "GOAWAY": {"last", "code", "data"},
    "WINDOW_UPDATE": {"increment"},
    "CONTINUATION": {"fields", "block"},
    "PRIORITY_UPDATE": {"prioritized", "data"},
}
#: The types that know of padding.
_PADDED = {"DATA", "HEADERS"}
_ANY_CONTENT = {"payload", "size"}
_REQUEST = {"request", "method", "path", "with", "without", "end", "end_headers"}


def octets(text: str) -> bytes:
    """Return the bytes that a text of a case stands for: each character is one."""
    return text.encode("latin-1")


def step(written: dict[str, Any]) -> bytes:
    """Return the bytes of one thing that a client sends. Raises `ValueError` if it is not known."""
    written = dict(written)
    times: int = written.pop("times", 1)
    [maker] = [make for key, make in _MAKERS.items() if key in written] or [_unknown]
    return times * maker(written)


def _unknown(written: dict[str, Any]) -> bytes:
    message = f"neither a frame nor a request, preface or text: {written}"
    raise ValueError(message)


def _only(written: dict[str, Any], known: set[str]) -> None:
    if unknown := set(written) - known:
        message = f"unknown words {sorted(unknown)} in {written}"
        raise ValueError(message)


def _text(written: dict[str, Any]) -> bytes:
    _only(written, {"text"})
    return octets(written["text"])


def _preface(written: dict[str, Any]) -> bytes:
    """Return the client's preface, with the settings in it."""
    _only(written, {"preface"})
    return PREFACE + settings(*_pairs(written["preface"]))


def _pairs(listed: list[list[Any]]) -> list[tuple[int, int]]:
    return [(_number(Setting, key), value) for key, value in listed]


def _number(names: Any, written: str | int) -> int:
    """Return the number that one of `names` has; a number stands for itself."""
    return written if isinstance(written, int) else int(names[written])


def _fields(listed: list[list[Any]]) -> bytes:
    """Return a header block: `[name, value]`, or `[name, character, how many of it]`."""
    return block(
        (octets(name), octets(value[0] * value[1] if len(value) > 1 else value[0]))
        for name, *value in listed
    )


def _request(written: dict[str, Any]) -> bytes:
    """Return a HEADERS frame that is a good request, but for what is said of it."""
    _only(written, _REQUEST)
    ends = written.get("end", True)
    fields: list[list[Any]] = [
        [":method", written.get("method", "GET" if ends else "POST")],
        [":scheme", "http"],
        [":path", written.get("path", "/")],
        [":authority", "test"],
    ]
    without = written.get("without", [])
    fields = [each for each in fields if each[0] not in without] + written.get("with", [])
    flags = (Flag.END_STREAM if ends else 0) | (
        Flag.END_HEADERS if written.get("end_headers", True) else 0
    )
    return frame(Type.HEADERS, _fields(fields), flags=flags, stream=written["request"])


def _frame(written: dict[str, Any]) -> bytes:
    """Return any frame."""
    name = written["frame"]
    _only(written, _PLACE | _ANY_CONTENT | _CONTENT.get(name, set()))
    flags = 0
    for flag in written.get("flags", []):
        flags |= _number(Flag, flag)
    payload = _payload(written, flags)
    if flags & Flag.PADDED and name in _PADDED and "payload" not in written:
        pad = written.get("pad", 0)
        payload = bytes([written.get("pad_length", pad)]) + payload + bytes(pad)
    stream = written.get("stream", 0) | (0x8000_0000 if written.get("reserved") else 0)
    kind = _number(Type, name)
    return frame(kind, payload, flags=flags, stream=stream, length=written.get("length"))


def _payload(written: dict[str, Any], flags: int) -> bytes:
    if "payload" in written:
        return bytes.fromhex(written["payload"])
    if "size" in written:
        return bytes(written["size"])
    make = _PAYLOADS.get(written["frame"])
    return b"" if make is None else make(written, flags)


def _header_payload(written: dict[str, Any], flags: int) -> bytes:
    dependency = _dependency(written, 0) if flags & Flag.PRIORITY else b""
    return dependency + _block(written, 0)


def _block(written: dict[str, Any], _: int) -> bytes:
    return _fields(written.get("fields", [])) + bytes.fromhex(written.get("block", ""))


def _dependency(written: dict[str, Any], _: int) -> bytes:
    depends: int = written.get("depends", 0) | (0x8000_0000 if written.get("exclusive") else 0)
    return depends.to_bytes(4) + bytes([written.get("weight", 16) - 1])


def _four(key: str, names: Any = None) -> Callable[[dict[str, Any], int], bytes]:
    """Return what writes down a number in four octets."""
    return lambda written, _: _number(names, written.get(key, 0)).to_bytes(4)


def _data(written: dict[str, Any], _: int) -> bytes:
    return octets(written.get("data", ""))


_PAYLOADS: dict[str, Callable[[dict[str, Any], int], bytes]] = {
    "DATA": _data,
    "HEADERS": _header_payload,
    "PRIORITY": _dependency,
    "RST_STREAM": _four("code", Code),
    "SETTINGS": lambda written, _: settings(*_pairs(written.get("settings", [])))[9:],
    "PUSH_PROMISE": lambda written, _: _four("promised")(written, 0) + _block(written, 0),
    "PING": _data,
    "GOAWAY": lambda written, _: (
        _four("last")(written, 0) + _four("code", Code)(written, 0) + _data(written, 0)
    ),
    "WINDOW_UPDATE": _four("increment"),
    "CONTINUATION": _block,
    "PRIORITY_UPDATE": lambda written, _: _four("prioritized")(written, 0) + _data(written, 0),
}
_MAKERS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "text": _text,
    "preface": _preface,
    "request": _request,
    "frame": _frame,
}
