"""HTTP/2 in any slicing, and garbage."""

from __future__ import annotations

from typing import Any

from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.streams import CONNECT, GET, POST, PREFACE, StreamRig, raw
from tests.support.wire import bytewise, cut

numbers = st.sampled_from([0, 1, 3, 5, 7, 2, 2**31 - 1])
payloads = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([bytes(4), bytes(5), bytes(6), bytes(8), b"\0\0\0\1", b"\0\4\0\0\0\0"]),
)
blocks = st.sampled_from(
    [
        Encoder().encode(fields)
        for fields in (GET, POST, CONNECT, GET[1:], [*POST, ("content-length", "3")], [("a", "b")])
    ]
)
frames = st.one_of(
    st.builds(raw, st.integers(0, 17), numbers, payloads, st.integers(0, 255)),
    st.builds(
        lambda number, block, end: raw(1, number, block, 4 | end),
        numbers,
        blocks,
        st.integers(0, 1),
    ),
    st.builds(
        lambda number, data, end: raw(0, number, data, end), numbers, payloads, st.integers(0, 1)
    ),
)
histories = st.lists(frames, max_size=12).map(b"".join)


def told(pieces: list[bytes]) -> tuple[Any, ...]:
    """Return all that is to be seen of what a codec makes of `pieces`."""
    rig = StreamRig(begin=False)
    for piece in pieces:
        rig.codec.receive(piece)
    rig.breathe()
    handler = rig.handler
    requests = {
        number: (request.head.target, request.body, request.ended, request.gone)
        for number, request in handler.requests.items()
    }
    faults = [(fault.code, fault.rule) for fault in handler.faults]
    rules = [reason.rule for reason in handler.refusals]
    return rig.seen(), requests, faults, rules, rig.port.ends, len(handler.tunnels)


@given(histories, st.lists(st.integers(0, 300), max_size=8))
def test_any_slicing_is_the_same(data: bytes, places: list[int]) -> None:
    """Whole, byte by byte, or cut anywhere: what is told and sent is the same."""
    start = PREFACE + raw(4, 0) + data
    whole = told([start])
    assert told(bytewise(start)) == whole
    assert told(cut(start, places)) == whole


@given(st.one_of(st.binary(max_size=200), histories))
@settings(max_examples=200)
def test_garbage_ends_in_one_goaway_at_the_most(data: bytes) -> None:
    """Nothing that arrives is an error of ours; behind a GOAWAY nothing is sent."""
    rig = StreamRig()
    rig.feed(*cut(data, range(0, len(data), 7)))
    seen = rig.seen()
    goaways = [each for each in seen if each[0] == "goaway"]
    assert len(goaways) <= 1
    assert not goaways or seen[-1] == goaways[0]
    rig.codec.expire(rig.port.time + 1000)
    rig.codec.lost()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40_000)), max_size=10),
    st.lists(st.integers(1, 30_000), max_size=30),
)
def test_bodies_arrive_whole_whatever_the_windows(
    bodies: list[tuple[int, int]], increments: list[int]
) -> None:
    """Each stream's bytes in order, never more than its window, and all of them in the end."""
    rig = StreamRig(settings={4: 10_000}, max_control_frames=0)
    streams = [1, 3, 5, 7]
    for number in streams:
        rig.ask(number)
        rig.answer(number, more=True)
    wanted = dict.fromkeys(streams, b"")
    got = dict.fromkeys(streams, b"")
    room = dict.fromkeys(streams, 10_000)

    def look() -> None:
        for kind, number, what, *_ in rig.seen():
            if kind == "data":
                got[number] += what
                assert len(got[number]) <= room[number]
                assert len(what) <= 16_384

    for which, size in bodies:
        number = streams[which]
        piece = bytes([len(wanted[number]) % 251]) * size
        wanted[number] += piece
        rig.codec.send(number, piece, more=True)
        rig.breathe()
        look()
    for index, increment in enumerate([*increments, *[500_000] * 4]):
        number = streams[index % 4]
        room[number] += increment
        rig.feed(raw(8, number, increment.to_bytes(4)), raw(8, 0, increment.to_bytes(4)))
        look()
    for number in streams:
        room[number] += 500_000
        rig.feed(raw(8, number, (500_000).to_bytes(4)))
        rig.codec.send(number, b"", more=False)
        rig.breathe()
    look()
    assert got == wanted
