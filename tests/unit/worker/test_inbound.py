"""What a client sends: messages, whatever the frames and the reads they come in."""

from __future__ import annotations

import pytest

from daphne_supervisor.config import WebSocket as Limits
from tests.support.transports import frame, opened

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

CALM = Limits(websocket_timeout=-1, connect_timeout=0, ping_interval=0, ping_timeout=0)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 5, 124, 125, 126])
def test_a_short_message_that_comes_alone_arrives(size: int, opcode: int) -> None:
    """As it does among others, whatever is left over of its mask."""
    websocket, port, listener = opened(CALM)
    payload = bytes(number % 128 for number in range(size))
    websocket.receive(frame(opcode, payload, mask=b"\x00\xff\x80\x01"))
    assert listener.messages == [payload.decode() if opcode == TEXT else payload]
    assert (port.sent, websocket._machine, websocket._rest) == (b"", None, b"")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"caf\xe9"), 1007),
        (frame(TEXT, b"xxxx", mask=None), 1002),
        (frame(TEXT, b"x" * 126, mask=None), 1002),
        (frame(TEXT, b"x", reserved=4), 1002),
        (frame(3, b"x"), 1002),
        (frame(BINARY, bytes(11)), 1009),
    ],
    ids=["not UTF-8", "no mask", "no mask, not short", "compressed", "unknown", "too large"],
)
def test_a_short_frame_that_comes_alone_keeps_to_the_rules(data: bytes, code: int) -> None:
    """There is no short cut around them."""
    limits = Limits(websocket_timeout=-1, ping_interval=0, max_frame_size=10)
    websocket, _, listener = opened(limits)
    websocket.receive(data)
    assert (listener.messages, listener.ends[0][0]) == ([], code)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 65_537, 300_000])
def test_a_message_of_any_size_arrives(size: int) -> None:
    """All three encodings of a length, in the lane and beyond it."""
    websocket, _, listener = opened(CALM)
    websocket.receive(frame(BINARY, b"x" * size) + frame(TEXT, b"next"))
    assert listener.messages == [b"x" * size, "next"]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 8, 100])
def test_a_message_may_come_in_two_reads(cut: int) -> None:
    """Wherever the network cuts: in the header, in the mask, in the payload."""
    websocket, _, listener = opened(CALM)
    data = frame(TEXT, b"a" * 200)
    websocket.receive(data[:cut])
    assert listener.messages == []
    websocket.receive(data[cut:] + frame(BINARY, b"b"))
    assert listener.messages == ["a" * 200, b"b"]


def test_the_lane_is_left_for_fragments_and_found_again() -> None:
    """Before, in and after a fragmented message nothing is lost, whatever the reads are."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(TEXT, b"1") + frame(TEXT, b"2", last=False))
    websocket.receive(frame(PING, b"?") + frame(0, b"3"))
    websocket.receive(frame(TEXT, b"4") + frame(PING, b"!") + frame(TEXT, b"5")[:3])
    websocket.receive(frame(TEXT, b"5")[3:])
    assert listener.messages == ["1", "23", "4", "5"]
    assert port.sent == b"\x8a\x01?\x8a\x01!"


@pytest.mark.parametrize("data", [frame(TEXT, b"x"), frame(TEXT, b"x", last=False) + frame(0)])
def test_what_breaks_in_us_is_the_connection_s_to_judge(data: bytes) -> None:
    """It is handed on; the loop, which would tell nobody whose error it was, never sees it."""
    seen: list[Exception] = []
    websocket, port, listener = opened(Limits())
    port.broken = seen.append  # type: ignore[method-assign]
    listener.ends.append((1000, "a message behind the end is an error"))
    websocket.receive(data)
    assert [type(error) for error in seen] == [AssertionError]


def test_a_pong_is_no_message() -> None:
    """It only proves that the peer is there."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(PONG, b"x") + frame(PONG))
    assert (listener.messages, port.sent, port.end) == ([], b"", "")


@pytest.mark.parametrize("step", [1, 3, 50])
def test_a_frame_in_many_pieces_arrives(step: int) -> None:
    """And the frames behind it, in as many."""
    websocket, _, listener = opened(CALM)
    data = frame(TEXT, b"a" * 200) + frame(BINARY, bytes(70_000)) + frame(PING) + frame(TEXT, b"b")
    for at in range(0, len(data), step):
        websocket.receive(data[at : at + step])
    assert listener.messages == ["a" * 200, bytes(70_000), "b"]
    assert websocket._machine is None, "an idle connection would keep a state machine"


@pytest.mark.parametrize("size", [1000, 65_536, 70_000])
@pytest.mark.parametrize("step", [300, 90, 1])
def test_a_bad_byte_fails_in_the_middle_of_its_frame(size: int, step: int) -> None:
    """The rest need not come (RFC 6455 section 8.1)."""
    websocket, port, listener = opened(CALM)
    data = frame(TEXT, b"a" * 250 + b"\xed\xa0" + bytes(size - 252))
    bad = len(data) - size + 252
    for at in range(0, bad - step, step):
        websocket.receive(data[at : at + step])
        assert port.end == ""
    websocket.receive(data[bad - (bad - 1) % step - 1 : bad])
    assert listener.ends == [(1007, "text message is not UTF-8")]


def test_a_frame_that_comes_in_drops_is_not_read_from_its_beginning_again() -> None:
    """The lane would: so the third piece finds the machine."""
    websocket, _, _ = opened(CALM)
    data = frame(BINARY, bytes(60_000))
    websocket.receive(data[:100])
    assert websocket._machine is None
    websocket.receive(data[100:200])
    assert websocket._machine is not None
    assert websocket._rest == b""


def test_what_an_application_has_no_room_for_waits() -> None:
    """As it was received; it goes on when the exchange says so, and nothing is lost."""
    websocket, _, listener = opened(CALM)
    listener.paused = True
    websocket.receive(b"".join(frame(TEXT, b"%d" % number) for number in range(4))[:-1])
    assert listener.messages == ["0"]
    websocket.resume()
    assert listener.messages == ["0", "1"]
    listener.paused = False
    websocket.resume()
    assert listener.messages == ["0", "1", "2"]
    websocket.receive(frame(TEXT, b"3")[-1:])
    assert listener.messages == ["0", "1", "2", "3"]


def test_behind_fragments_that_fill_the_queue_nothing_is_read() -> None:
    """As behind a message in one frame."""
    websocket, _, listener = opened(CALM)
    listener.paused = True
    websocket.receive(frame(TEXT, b"1", last=False) + frame(0, b"2") + frame(TEXT, b"3"))
    assert listener.messages == ["12"]
    websocket.resume()
    assert listener.messages == ["12", "3"]


@pytest.mark.parametrize("piece", [frame(PING), frame(PONG), frame(TEXT, b"", last=False)])
def test_others_have_their_turn_in_a_flood(piece: bytes) -> None:
    """Of frames that make no message: so many are read, and the rest later."""
    websocket, _, listener = opened(Limits(max_fragments=0, websocket_timeout=-1, ping_interval=0))
    if piece[0] < 0x80:
        websocket.receive(piece)
        piece = frame(0, b"", last=False)
    websocket.receive(piece * 1000 + frame(0 if piece[0] < 0x80 else TEXT, b"end"))
    turns = 0
    while listener.breathless:
        listener.breathless = False
        turns += 1
        assert listener.messages == []
        websocket.resume()
    assert (listener.messages, turns) == (["end"], 3)


def test_others_have_their_turn_in_a_flood_while_we_close() -> None:
    """The peer's close frame is found all the same."""
    websocket, port, listener = opened(CALM)
    websocket.close(1000, "")
    websocket.receive(frame(PING) * 1000 + frame(CLOSE, b"\x03\xe8"))
    assert port.end == ""
    while listener.breathless:
        listener.breathless = False
        websocket.resume()
    assert port.end == "close"
