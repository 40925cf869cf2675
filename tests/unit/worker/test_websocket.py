"""The codec of a WebSocket: frames in, messages out, and what time does to it."""

from __future__ import annotations

import math
import zlib

import pytest

from daphne_supervisor.config import WebSocket as Limits
from daphne_supervisor.worker.websocket import CLOSE_TIMEOUT, Phase, WebSocket
from tests.support.transports import Listener, Port, deflated, frame, handshake, opened

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

CALM = Limits(websocket_timeout=-1, connect_timeout=0, ping_interval=0, ping_timeout=0)
DENSE = Limits(websocket_timeout=-1, ping_interval=0, compression=True)
OFFER = b"permessage-deflate"
#: What a client sends with RSV1 set (RFC 7692 section 6).
DEFLATED = 4
NOISE = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(2000))


def connecting(limits: Limits = CALM, early: bytes = b"") -> tuple[WebSocket, Port, Listener]:
    """Return a codec whose handshake is not answered."""
    port, listener = Port(), Listener()
    websocket = WebSocket(port, handshake(), early, limits)
    websocket.attach(listener)
    return websocket, port, listener


# -- the handshake --


def test_the_answer_proves_that_the_handshake_was_read() -> None:
    """The example of RFC 6455 section 1.3, with a subprotocol and a header of the application's."""
    websocket, port, _ = connecting()
    websocket.accept("soap", [(b"x-one", b"1")])
    assert websocket.phase is Phase.OPEN
    assert port.sent == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: soap\r\n"
        b"x-one: 1\r\n\r\n"
    )


def test_an_answer_that_cannot_be_sent_changes_nothing() -> None:
    """After a header with CR LF the handshake can still be denied."""
    websocket, port, _ = connecting()
    with pytest.raises(ValueError, match="x-one"):
        websocket.accept(None, [(b"x-one", b"1\r\nx-two: 2")])
    assert (websocket.phase, port.sent) == (Phase.CONNECTING, b"")


def test_frames_that_come_early_are_kept() -> None:
    """A client that does not wait for the answer loses nothing."""
    websocket, _, listener = connecting(early=frame(TEXT, b"one")[:4])
    websocket.receive(frame(TEXT, b"one")[4:] + frame(TEXT, b"two"))
    assert listener.messages == []
    websocket.accept(None, [])
    websocket.catch_up()
    assert listener.messages == ["one", "two"]


def test_a_client_that_floods_before_the_answer_is_dropped() -> None:
    """What waits for an application that does not answer is bounded."""
    websocket, port, listener = connecting()
    websocket.receive(bytes(65_536))
    assert port.end == ""
    websocket.receive(b"x")
    assert (port.end, listener.ends[0][0]) == ("abort", 1006)


def test_a_handshake_answered_while_the_worker_leaves_is_closed_at_once() -> None:
    """The client learns that it may come back, rather than lose its connection later."""
    websocket, port, listener = connecting(early=frame(TEXT, b"early"))
    port.worker.closing_websockets = True
    websocket.accept(None, [])
    websocket.catch_up()
    assert port.sent.endswith(b"\x88\x11\x03\xf4service restart")
    assert (listener.messages, listener.ends) == ([], [(1012, "service restart")])


def test_a_denial_is_an_http_response() -> None:
    """Whole, with its length, and the end of the connection."""
    websocket, port, _ = connecting(early=b"x")
    websocket.deny(418, [(b"x-why", b"tea")], b"short", more=False)
    assert port.sent == (
        b"HTTP/1.1 418 I'm a Teapot\r\nx-why: tea\r\nContent-Length: 5\r\n"
        b"Connection: close\r\n\r\nshort"
    )
    assert (websocket.phase, port.end) == (Phase.CLOSED, "close")


def test_a_denial_may_come_in_pieces() -> None:
    """Each piece leaves at once; the last one ends the connection. What comes in is thrown away."""
    websocket, port, listener = connecting()
    websocket.deny(403, [], b"one", more=True)
    websocket.receive(frame(TEXT, b"hello?"))
    assert (port.take().split(b"\r\n\r\n")[1], websocket.phase) == (b"3\r\none\r\n", Phase.DENYING)
    websocket.deny_further(b"two", more=True)
    websocket.deny_further(b"", more=False)
    assert (port.sent, port.end) == (b"3\r\ntwo\r\n0\r\n\r\n", "close")
    assert listener.messages == []


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [(99, [], b""), (403, [(b"a b", b"")], b""), (403, [(b"content-length", b"1")], b"two")],
)
def test_a_denial_that_cannot_be_sent_changes_nothing(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """There is never half a denial on the wire: another one can follow."""
    websocket, port, _ = connecting()
    with pytest.raises(ValueError, match=r"."):
        websocket.deny(status, headers, body, more=False)
    assert (websocket.phase, port.sent, port.end) == (Phase.CONNECTING, b"", "")


# -- compression --


def test_compression_is_agreed_on_in_the_handshake() -> None:
    """If it is on, and the client offers it; the answer stands among our lines."""
    for limits, offer in ((DENSE, OFFER), (DENSE, b""), (DENSE, b"x"), (CALM, OFFER)):
        port = Port()
        websocket = WebSocket(port, handshake(offer), b"", limits)
        websocket.attach(Listener())
        websocket.accept(None, [])
        agreed = b"Sec-WebSocket-Extensions: permessage-deflate; " in port.sent
        assert agreed is (limits is DENSE and offer is OFFER)


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 70_000, 1_000_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("step", [100, 1 << 20])
def test_a_compressed_message_arrives(size: int, opcode: int, step: int) -> None:
    """In one frame or in fragments, in any slicing, between plain ones."""
    websocket, _, listener = opened(DENSE, OFFER)
    text = "".join(f"{number:x} " for number in range(size // 4 + 1))[:size]
    payload = deflated(text.encode())
    data = frame(opcode, payload, reserved=DEFLATED) + frame(TEXT, b"plain")
    data += frame(opcode, payload[:50], reserved=DEFLATED, last=False) + frame(PING)
    data += frame(0, payload[50:])
    for at in range(0, len(data), step):
        websocket.receive(data[at : at + step])
    message = text if opcode == TEXT else text.encode()
    assert listener.messages == [message, "plain", message]
    assert websocket._machine is None


def test_a_client_keeps_to_the_window_that_was_agreed_on() -> None:
    """What refers farther back is not deflated by it."""
    noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(5000))
    for offer, end in ((OFFER, []), (OFFER + b"; client_max_window_bits", [1007])):
        websocket, _, listener = opened(DENSE, offer)
        websocket.receive(frame(BINARY, deflated(noise + noise), reserved=DEFLATED))
        assert [code for code, _ in listener.ends] == end


@pytest.mark.parametrize("step", [1, 100, 1 << 20])
@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (frame(BINARY, b"\xff\xff", reserved=DEFLATED), 1007, "RFC 7692"),
        (frame(BINARY, bytes(5000), reserved=DEFLATED), 1007, "RFC 7692"),
        (frame(TEXT, deflated(b"\xff"), reserved=DEFLATED), 1007, "UTF-8"),
        (frame(TEXT, deflated(b"\xff" + bytes(2_000_000)), reserved=DEFLATED), 1008, "ratio"),
        (frame(BINARY, deflated(bytes(150_000)), reserved=DEFLATED), 1008, "compression-max-ratio"),
        (frame(BINARY, deflated(bytes(9_000_000)), reserved=DEFLATED), 1008, "max-ratio"),
        (frame(TEXT, deflated(b"\xff" + NOISE) + b"junk", reserved=DEFLATED), 1007, "UTF-8"),
        (frame(PING, reserved=DEFLATED), 1002, "control frame"),
        (frame(TEXT, b"x", reserved=2), 1002, "RSV"),
        (frame(TEXT, b"x", reserved=6), 1002, "RSV"),
        (frame(TEXT, last=False) + frame(0, b"x", reserved=DEFLATED), 1002, "continuation"),
    ],
)
def test_a_compressed_violation_is_one_in_any_slicing(
    data: bytes, code: int, said: str, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log names the rule or the option."""
    caplog.set_level("INFO")
    websocket, port, listener = opened(DENSE, OFFER)
    for at in range(0, len(data), step):
        websocket.receive(data[at : at + step])
    assert ([end[0] for end in listener.ends], port.end) == ([code], "shut")
    assert listener.messages == []
    assert said in caplog.text


def test_without_an_agreement_a_compressed_frame_is_a_violation() -> None:
    """RSV1 means nothing then (RFC 6455 section 5.2)."""
    websocket, _, listener = opened(DENSE)
    websocket.receive(frame(TEXT, deflated(b"x"), reserved=DEFLATED))
    assert listener.ends[0][0] == 1002


def test_bombs_wait_while_the_application_has_no_room() -> None:
    """A read full of small frames would otherwise become gigabytes at once."""
    websocket, _, listener = opened(DENSE, OFFER)
    listener.paused = True
    websocket.receive(frame(BINARY, deflated(bytes(65_536)), reserved=DEFLATED) * 100)
    assert len(listener.messages) == 1


def test_a_message_above_the_smallest_size_is_sent_compressed() -> None:
    """A smaller one is sent as it is, and so is one that nothing is gained by."""
    websocket, port, _ = opened(DENSE, OFFER)
    websocket.send(b"x" * 1023, text=True)
    assert port.take()[:1] == b"\x81"
    websocket.send(b"x" * 1024, text=True)
    websocket.send(b"x" * 1024, text=False)
    both = port.take()
    size = 2 + both[1]
    assert (both[0], both[size]) == (0xC1, 0xC2)
    inflater = zlib.decompressobj(-12)
    assert inflater.decompress(both[2:size] + b"\0\0\xff\xff") == b"x" * 1024
    websocket.send(NOISE, text=False)
    assert port.take() == b"\x82\x7e\x1f\x40" + NOISE


# -- messages out --


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (16_385, b"\x82\x7e\x40\x01"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_message_leaves_as_one_frame(size: int, header: bytes) -> None:
    """In the shortest form of its length (RFC 6455 section 5.2)."""
    websocket, port, _ = opened(CALM)
    websocket.send(b"x" * size, text=False)
    assert port.sent == header + b"x" * size


def test_text_is_marked_as_text() -> None:
    """The opcode tells text from bytes."""
    websocket, port, _ = opened(CALM)
    websocket.send("é".encode(), text=True)
    assert port.sent == b"\x81\x02\xc3\xa9"


# -- the end --


def test_the_peer_closes() -> None:
    """Its code and reason are told once, its frame is echoed, and we close first."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(CLOSE, b"\x0f\xa0bye") + frame(TEXT, b"behind"))
    assert (listener.ends, listener.messages) == ([(4000, "bye")], [])
    assert (port.sent, port.end) == (b"\x88\x05\x0f\xa0bye", "close")
    websocket.receive(frame(TEXT, b"x"))
    websocket.lost()
    assert len(listener.ends) == 1


def test_a_peer_that_gives_no_code_gave_none() -> None:
    """1005 stands for "no code" (RFC 6455 section 7.1.5)."""
    websocket, _, listener = opened(CALM)
    websocket.receive(frame(CLOSE))
    assert listener.ends == [(1005, "")]


def test_we_close() -> None:
    """The end is told at once; messages on their way are thrown away; the answer ends it."""
    websocket, port, listener = opened(CALM)
    websocket.close(4001, "enough")
    assert (port.take(), listener.ends) == (b"\x88\x08\x0f\xa1enough", [(4001, "enough")])
    assert websocket.deadline == port.time + CLOSE_TIMEOUT
    websocket.close(4002, "again")
    websocket.receive(frame(TEXT, b"late") + frame(PING, b"?") + frame(CLOSE, b"\x0f\xa1enough"))
    assert (port.sent, port.end, listener.messages) == (b"", "close", [])
    assert (websocket.phase, websocket.deadline, len(listener.ends)) == (Phase.CLOSED, math.inf, 1)


def test_a_long_reason_is_cut_between_characters() -> None:
    """A control frame holds 125 bytes (RFC 6455 section 5.5), and text stays UTF-8."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "x" + "é" * 100)
    assert port.sent[:4] == b"\x88\x7d\x03\xe8"
    assert port.sent[4:].decode() == "x" + "é" * 61


def test_both_close_at_the_same_time() -> None:
    """Each side's frame is taken for the answer to the other's."""
    websocket, port, listener = opened(CALM)
    websocket.close(1000, "")
    websocket.receive(frame(CLOSE, b"\x03\xe9"))
    assert (listener.ends, port.end) == ([(1000, "")], "close")


def test_a_violation_while_we_close_is_the_end() -> None:
    """There is nothing to wait for any more."""
    websocket, port, listener = opened(CALM)
    websocket.close(1000, "")
    websocket.receive(frame(TEXT, b"x", mask=None))
    assert (port.end, listener.ends) == ("close", [(1000, "")])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xff", last=False), 1007),
        (b"\x8a\xfe\x00\x7e", 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),
    ],
)
def test_a_violation_fails_the_connection(
    data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """We say why, close our side, and listen no more; the log has one line."""
    caplog.set_level("INFO")
    websocket, port, listener = opened(CALM)
    websocket.receive(data + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"x"))
    websocket.receive(frame(TEXT, b"y") + b"\xff" * 100)
    assert port.sent[:1] == b"\x88"
    assert int.from_bytes(port.sent[2:4]) == code
    assert port.end == "shut"
    assert [end[0] for end in listener.ends] == [code]
    assert listener.messages == []
    assert websocket._machine is None, "what is thrown away would be kept"
    assert [f"closed {code}" in record.getMessage() for record in caplog.records] == [True]
    websocket.expire(websocket.deadline)
    assert websocket.phase is Phase.CLOSED


def test_a_frame_cut_by_our_close_is_read_to_its_end() -> None:
    """What is behind it would otherwise be taken for a violation."""
    websocket, port, listener = opened(CALM)
    data = frame(TEXT, b"x" * 100) + frame(CLOSE, b"\x03\xe8")
    websocket.receive(data[:50])
    websocket.close(1000, "")
    websocket.receive(data[50:-1])
    assert (port.end, websocket.phase) == ("", Phase.CLOSING)
    websocket.receive(data[-1:])
    assert (port.end, websocket.phase, listener.messages) == ("close", Phase.CLOSED, [])


def test_a_close_frame_that_waits_is_found_when_we_close() -> None:
    """It may stand behind messages that the application had no room for."""
    websocket, port, listener = opened(CALM)
    listener.paused = True
    websocket.receive(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(CLOSE))
    websocket.close(1000, "")
    assert (port.end, listener.messages, listener.ends) == ("close", ["1"], [(1000, "")])


@pytest.mark.parametrize(
    ("limits", "data", "code", "option"),
    [
        (
            Limits(max_message_size=100, max_frame_size=0),
            frame(BINARY, bytes(101)),
            1009,
            "--websocket-max-message-size",
        ),
        (
            Limits(max_message_size=0, max_frame_size=9),
            frame(BINARY, bytes(101)),
            1009,
            "--websocket-max-frame-size",
        ),
        (
            Limits(max_fragments=2),
            frame(BINARY, last=False) + frame(0, last=False) + frame(0),
            1008,
            "--websocket-max-fragments",
        ),
    ],
)
def test_a_message_beyond_a_limit_names_the_option(
    limits: Limits, data: bytes, code: int, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads the log knows what to raise."""
    caplog.set_level("INFO")
    websocket, _, listener = opened(limits)
    websocket.receive(data)
    assert [end[0] for end in listener.ends] == [code]
    assert listener.messages == []
    assert f"({option})" in caplog.text


def test_a_connection_that_is_lost_closed_abnormally() -> None:
    """1006 is never sent, only reported (RFC 6455 section 7.1.5)."""
    websocket, port, listener = opened(CALM)
    websocket.lost()
    assert (listener.ends, port.sent, port.end) == ([(1006, "")], b"", "")


def test_the_worker_leaves() -> None:
    """1012 tells a client to come back (IANA registry)."""
    websocket, port, listener = opened(CALM)
    websocket.drain()
    websocket.drain()
    assert listener.ends == [(1012, "service restart")]
    assert port.sent == b"\x88\x11\x03\xf4service restart"


def test_an_abort_is_the_end() -> None:
    """Nothing is watched or heard behind it."""
    websocket, port, listener = opened(CALM)
    websocket.abort()
    websocket.lost()
    assert (port.end, websocket.deadline, listener.ends) == ("abort", math.inf, [])


def test_what_comes_behind_the_end_is_not_read() -> None:
    """A connection that is closed hears nothing, nor does it go on."""
    websocket, port, listener = opened(CALM)
    websocket.receive(frame(CLOSE))
    port.take()
    websocket.receive(frame(CLOSE) + frame(TEXT, b"x"))
    websocket.resume()
    assert (port.sent, listener.messages, len(listener.ends)) == (b"", [], 1)


@pytest.mark.parametrize("cut", [1, 3])
def test_a_close_frame_in_pieces_ends_our_close(cut: int) -> None:
    """Cut in its header, and in what it says."""
    websocket, port, _ = opened(CALM)
    websocket.close(1000, "")
    answer = frame(CLOSE, b"\x03\xe8")
    websocket.receive(answer[:cut])
    assert port.end == ""
    websocket.receive(answer[cut:])
    assert port.end == "close"
