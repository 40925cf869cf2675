"""PROXY headers that chance has written."""

from __future__ import annotations

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.worker.proxy_protocol import MalformedError, NoHeaderError, read

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HOSTS = st.ip_addresses(v=4).map(str)
PORTS = st.integers(0, 65535)
FIELDS = st.lists(st.tuples(st.integers(0x30, 0xFF), st.binary(max_size=40)), max_size=4)


@given(
    beginning=st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE]),
    rest=st.binary(max_size=300),
)
def test_garbage_is_refused_or_waited_for(beginning: bytes, rest: bytes) -> None:
    """Whatever comes is a header, the beginning of one, or refused with a reason."""
    header = None
    with contextlib.suppress(MalformedError, NoHeaderError):
        header = read(beginning + rest)
    assert header is None or header.size <= len(beginning + rest)


@given(st.tuples(HOSTS, PORTS), st.tuples(HOSTS, PORTS), FIELDS, st.binary(max_size=50))
def test_both_versions_say_the_same_however_they_are_sliced(
    client: tuple[str, int],
    server: tuple[str, int],
    fields: list[tuple[int, bytes]],
    behind: bytes,
) -> None:
    """No slicing makes a difference, and nothing of what follows is taken."""
    (source, port), (target, other) = client, server
    first = f"PROXY TCP4 {source} {target} {port} {other}\r\n".encode()
    block = bytes(map(int, f"{source}.{target}".split("."))) + struct.pack("!HH", port, other)
    for kind, value in fields:
        block += struct.pack("!BH", kind, len(value)) + value
    second = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(block)) + block
    for data in (first, second):
        whole = data + behind
        seen = [read(whole[:size]) for size in range(1, len(whole) + 1)]
        assert seen[: len(data) - 1] == [None] * (len(data) - 1)
        headers = set(seen[len(data) - 1 :])
        assert {(one.size, one.client, one.server) for one in headers if one} == {
            (len(data), client, server)
        }
