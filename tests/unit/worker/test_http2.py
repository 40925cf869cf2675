"""An HTTP/2 connection as a whole: its beginning, its time, its end."""

from __future__ import annotations

import pytest
from hyperframe.frame import PingFrame, SettingsFrame

from daphne_supervisor.config import Http
from daphne_supervisor.worker.http2 import AHEAD, BEHIND_UPGRADE, LINGER, ROUND_TRIP, Phase
from tests.support.streams import CONNECT, GET, POST, PREFACE, StreamRig, goaway, raw
from tests.support.wire import bytewise

LAST = 2**31 - 1


def drained(**own: int) -> StreamRig:
    """Return a rig whose worker leaves, after the first GOAWAY."""
    rig = StreamRig(**own)
    rig.codec.drain()
    rig.breathe()
    assert rig.seen() == [("goaway", LAST, 0), ("ping", b"goodbye!")]
    return rig


PONG = PingFrame(0, b"goodbye!", flags=["ACK"]).serialize()


# -- the beginning --


def test_it_says_what_it_takes() -> None:
    """The first frame is SETTINGS; the connection's window has room for all streams'."""
    rig = StreamRig(begin=False, max_streams=10, stream_window=100_000)
    rig.breathe()
    settings, window = rig.seen()
    assert settings == ("settings", {3: 10, 4: 100_000, 6: 65536 + 32 * 128, 8: 1, 9: 1})
    assert window == ("window", 0, 10 * 100_000 - 65535)


def test_any_slicing_of_a_beginning_will_do() -> None:
    """A request that comes byte by byte is the same request."""
    rig = StreamRig(begin=False)
    rig.feed(*bytewise(PREFACE + SettingsFrame(0).serialize() + rig.headers(1)))
    assert rig.handler.requests[1].started
    assert ("ack",) in rig.seen()


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + raw(6, 0, bytes(8))])
def test_a_client_that_begins_otherwise_is_told(start: bytes) -> None:
    """Without preface, or without SETTINGS behind it, there is no HTTP/2."""
    rig = StreamRig(begin=False)
    rig.feed(start)
    assert rig.seen()[-1] == goaway(1)
    assert rig.port.ends == ["shut"]


def test_a_client_that_says_nothing_is_let_go() -> None:
    """--head-timeout holds for the beginning, too."""
    rig = StreamRig(begin=False)
    rig.codec.expire(rig.port.time + 30)
    assert rig.port.ends == ["close"]


def test_an_upgrade_begins_with_its_request() -> None:
    """The request that asked for HTTP/2 is stream 1, answered under the settings it came with."""
    rig = StreamRig(begin=False)
    head = StreamRig().ask().head
    rig.codec.answer_upgrade(head, [(4, 5)])
    rig.feed(PREFACE + SettingsFrame(0).serialize())
    rig.frames()
    rig.answer(1, b"1234567")
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"12345")]


def test_most_of_the_answer_to_an_upgrade_waits_for_the_preface() -> None:
    """A client that is not ready for frames gets few; its own settings let the rest through."""
    rig = StreamRig(begin=False)
    head = StreamRig().ask().head
    rig.codec.answer_upgrade(head, [])
    rig.answer(1, bytes(20_000))
    sizes = [len(each[2]) for each in rig.seen() if each[0] == "data"]
    assert sum(sizes) == BEHIND_UPGRADE
    rig.feed(PREFACE + SettingsFrame(0).serialize())
    sizes = [len(each[2]) for each in rig.seen() if each[0] == "data"]
    assert sum(sizes) == 20_000 - BEHIND_UPGRADE


# -- floods, and our own errors --


def test_a_read_that_says_that_more_waits_lets_others_go_first() -> None:
    """Frames beyond the budget of a turn, or a large read, wait until everybody had a turn."""
    rig = StreamRig(max_control_frames=0)
    rig.codec.receive(raw(6, 0, bytes(8)) * 300)
    assert not rig.port.reading
    rig.breathe()
    assert rig.port.reading
    assert rig.seen() == [("pong", bytes(8))] * 300
    rig.post()
    rig.codec.receive(rig.data(1, bytes(16000)) * 5)
    assert not rig.port.reading
    rig.codec.receive(rig.data(1, b"x"))  # what the transport had read already
    rig.breathe()
    assert rig.port.reading


def test_a_pause_is_one() -> None:
    """However many large reads the transport had done already."""
    rig = StreamRig()
    rig.post()
    for _ in range(2):
        rig.codec.receive(raw(99, 0, bytes(10_000)) * 8)
    assert not rig.port.reading
    rig.breathe()
    assert rig.port.reading


def test_nothing_is_read_behind_the_last_stream() -> None:
    """Whoever said goodbye, and ends its last stream with a fault, is not listened to."""
    rig = StreamRig()
    rig.ask()
    rig.feed(raw(7, 0, bytes(8)))
    rig.codec.receive(raw(8, 1, bytes(4)) + rig.headers(3))
    assert rig.port.ends == ["close"]
    assert 3 not in rig.handler.requests


def test_nothing_goes_on_behind_the_end() -> None:
    """A connection that is lost while others had their turn is not touched again."""
    rig = StreamRig(max_control_frames=0)
    rig.codec.receive(raw(6, 0, bytes(8)) * 300)
    rig.codec.lost()
    rig.breathe()
    assert not rig.port.reading


def test_what_breaks_in_us_is_said() -> None:
    """An error of ours goes to the connection, which knows what to do."""
    rig = StreamRig()
    rig.handler.begin_stream = None  # type: ignore[assignment, method-assign]
    with pytest.raises(AssertionError, match="an error of ours"):
        rig.feed(rig.headers(1))


# -- the end for a fault --


def test_a_fault_of_the_connection_ends_it() -> None:
    """One GOAWAY says why; applications hear that their client is gone; the rest is thrown away."""
    rig = StreamRig()
    request = rig.ask()
    rig.feed(raw(0, 0, b"x"))
    assert rig.seen() == [goaway(1, last=1)]
    assert rig.handler.faults[0].rule.startswith("DATA without a stream")
    assert request.gone
    assert rig.port.ends == ["shut"]
    rig.feed(rig.headers(3))
    assert 3 not in rig.handler.requests
    assert rig.codec.deadline == rig.port.time + LINGER
    rig.codec.expire(rig.port.time + LINGER)
    assert rig.handler.forgotten
    rig.codec.lost()


def test_a_fault_ends_a_connection_that_is_paused() -> None:
    """What still comes must be read, or the reset would overtake the GOAWAY."""
    rig = StreamRig(max_control_frames=0)
    rig.codec.receive(raw(6, 0, bytes(8)) * 257)
    rig.codec.receive(raw(0, 0, b"x"))
    rig.breathe()
    assert rig.port.reading
    assert rig.seen()[-1] == goaway(1)


def test_a_stream_fault_may_be_the_last_straw() -> None:
    """Streams that fail are counted: the fault of a stream can end the connection."""
    rig = StreamRig(max_resets=2)
    rig.feed(rig.headers(1) + rig.headers(3), raw(8, 1, bytes(4)), raw(8, 3, bytes(4)))
    assert rig.seen() == [("reset", 1, 1), ("reset", 3, 1)]
    rig.feed(rig.headers(5), raw(8, 5, bytes(4)) + rig.headers(7))
    assert rig.seen() == [("reset", 5, 1), goaway(11, last=5)]
    assert "--http2-max-resets" in rig.handler.faults[0].rule


# -- leaving --


def test_a_worker_that_leaves_says_so_twice() -> None:
    """Requests that were under way are answered; after the second GOAWAY none begins."""
    rig = drained()
    rig.codec.drain()
    first = rig.ask(1)
    rig.feed(PONG)
    assert rig.seen() == [goaway(0, last=1)]
    rig.feed(rig.headers(3))
    assert 3 not in rig.handler.requests
    assert first.started
    assert rig.port.ends == []
    rig.answer(1)
    assert rig.seen() == [("headers", 1, "200", "end")]
    assert rig.port.ends == ["close"]


def test_an_idle_connection_closes_when_the_worker_leaves() -> None:
    """Behind the second GOAWAY, at the latest after a moment."""
    rig = drained()
    assert rig.codec.deadline == rig.port.time + ROUND_TRIP
    rig.codec.expire(rig.port.time + ROUND_TRIP)
    assert rig.seen() == [goaway(0)]
    assert rig.port.ends == ["close"]


def test_an_answer_while_the_worker_lingers_is_among_the_last() -> None:
    """A worker that is to be recycled tells whoever it answers."""
    rig = StreamRig()
    rig.ask()
    rig.port.worker.lingering = True
    rig.answer(1)
    assert rig.seen()[0] == ("goaway", LAST, 0)
    assert rig.codec.phase is Phase.LEAVING
    rig.feed(PONG)
    assert rig.port.ends == ["close"]


def test_another_pong_is_just_counted() -> None:
    """Only the answer to our ping says that the client has seen the GOAWAY."""
    rig = drained()
    rig.feed(PingFrame(0, bytes(8), flags=["ACK"]).serialize())
    assert rig.codec.phase is Phase.LEAVING
    rig = StreamRig()
    rig.feed(PONG)
    assert rig.codec.phase is Phase.OPEN


def test_a_client_that_leaves_is_answered_first() -> None:
    """GOAWAY of a client says that it begins nothing more, not that it listens no more."""
    rig = StreamRig()
    rig.ask()
    rig.feed(raw(7, 0, bytes(8)))
    rig.answer(1, b"x")
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"x", "end")]
    assert rig.port.ends == ["close"]
    idle = StreamRig()
    idle.feed(raw(7, 0, bytes(8)))
    assert idle.port.ends == ["close"]


def test_a_connection_has_so_many_requests() -> None:
    """--http2-max-requests: then the client is told to come back."""
    rig = StreamRig(max_requests=2)
    rig.ask(1)
    assert rig.seen() == []
    rig.ask(3)
    assert rig.seen()[0] == ("goaway", LAST, 0)


def test_the_connection_is_lost() -> None:
    """Every application hears it; nobody is held."""
    rig = StreamRig()
    request = rig.ask()
    rig.codec.lost()
    assert request.gone
    assert rig.codec.streams == {}


# -- time --


def test_an_idle_connection_is_closed_in_time() -> None:
    """--keep-alive runs while no stream is open, and is not a matter of pings."""
    rig = StreamRig(Http(keep_alive=7))
    rig.ask()
    assert rig.codec.deadline > rig.port.time + 10
    rig.codec.expire(rig.port.time)
    rig.answer(1)
    rig.frames()
    assert rig.codec.deadline == rig.port.time + 7
    rig.codec.expire(rig.port.time + 6)
    assert rig.port.ends == []
    rig.port.time += 7
    rig.codec.expire(rig.port.time)
    rig.breathe()
    assert rig.seen() == [("goaway", LAST, 0), ("ping", b"goodbye!")]
    assert rig.codec.deadline == rig.port.time + ROUND_TRIP
    rig.codec.expire(rig.port.time + ROUND_TRIP)
    assert rig.seen() == [goaway(0, last=1)]
    assert rig.port.ends == ["close"]
    rig.codec.expire(rig.port.time + 100)


def test_a_request_under_way_to_an_idle_connection_is_answered() -> None:
    """The end of --keep-alive is told as that of a worker is."""
    rig = StreamRig(Http(keep_alive=7))
    rig.ask()
    rig.answer(1)
    rig.codec.expire(rig.port.time + 7)
    assert rig.ask(3).started
    rig.feed(PONG)
    rig.answer(3)
    assert rig.seen()[-1] == ("headers", 3, "200", "end")
    assert rig.port.ends == ["close"]


def test_a_head_that_is_begun_has_to_end() -> None:
    """--head-timeout holds for each field block."""
    rig = StreamRig()
    rig.feed(raw(1, 1, b"\x82"))
    assert rig.codec.deadline == rig.port.time + 30
    rig.feed(raw(9, 1, b""))
    rig.codec.expire(rig.port.time + 30)
    assert rig.seen() == [goaway(11)]
    assert "--head-timeout" in rig.handler.faults[0].rule
    timely = StreamRig()
    timely.feed(raw(1, 1, b"\x82", flags=1))
    timely.feed(raw(9, 1, timely.encoder.encode(GET[1:]), flags=4))
    timely.codec.expire(timely.port.time + 30)
    assert timely.port.ends == []
    assert timely.handler.requests[1].started


def test_an_application_that_takes_too_long() -> None:
    """--http-timeout holds for each stream."""
    rig = StreamRig(Http(http_timeout=3))
    request, other = rig.ask(1), None
    rig.port.time += 1
    other = rig.ask(3)
    assert rig.codec.deadline == rig.port.time + 2
    rig.codec.expire(rig.port.time + 2)
    assert (request.expired, other.expired) == (True, False)
    assert rig.codec.deadline == rig.port.time + 3


def test_a_stream_may_end_while_another_expires() -> None:
    """What an application does in its hurry is its own."""
    rig = StreamRig(Http(http_timeout=3))
    first, second = rig.ask(1), rig.ask(3)
    first.expire = lambda: rig.codec.give_up(3)  # type: ignore[method-assign]
    rig.codec.expire(rig.port.time + 3)
    assert not second.expired
    assert list(rig.codec.streams) == [1]


def test_an_answer_that_the_client_is_taking_is_not_late() -> None:
    """An application that has said all is done, whenever its client has it."""
    rig = StreamRig(Http(http_timeout=3), settings={4: 1})
    request = rig.ask()
    rig.answer(1, b"12")
    rig.codec.expire(rig.port.time + 3)
    assert not request.expired


def test_a_body_has_its_pace() -> None:
    """--body-min-rate holds, unless we are the ones who hold it up."""
    rig = StreamRig()
    request = rig.post()
    rig.codec.expire(rig.port.time + 5)
    assert request.gone
    rig.breathe()
    assert rig.seen()[0] == ("headers", 1, "408")
    timely = StreamRig()
    request = timely.post()
    timely.feed(timely.data(1, bytes(2000)))
    timely.codec.expire(timely.port.time + 5)
    assert not request.gone
    assert timely.codec.deadline == timely.port.time + 10
    asked = StreamRig()
    request = asked.post(1, [*POST, ("expect", "100-continue")])
    asked.codec.expire(asked.port.time + 5)
    asked.port.time += 9.9
    asked.codec.proceed(1)
    request.asked = True
    asked.codec.expire(asked.port.time + 0.1)
    assert not request.gone
    asked.codec.expire(asked.port.time + 5)
    assert request.gone


def test_a_body_that_the_application_does_not_read_has_no_pace() -> None:
    """The client may not send, or not much."""
    rig = StreamRig(stream_window=65_535)
    request = rig.post()
    rig.feed(*[rig.data(1, bytes(11_000))] * 3)
    rig.codec.expire(rig.port.time + 5)
    rig.codec.expire(rig.port.time + 1000)
    assert not request.gone


def test_a_window_that_stays_shut() -> None:
    """--write-timeout: who asks and does not take is given up."""
    rig = StreamRig(settings={4: 1})
    request = rig.ask()
    rig.answer(1, b"123", more=True)
    assert rig.codec.deadline == rig.port.time + 60
    rig.port.congested = True  # then it is the connection that is watched
    rig.codec.expire(rig.port.time + 60)
    assert rig.codec.deadline == rig.port.time + 120
    rig.port.congested = False
    rig.frames()
    rig.codec.expire(rig.port.time + 120)
    assert request.gone
    rig.breathe()
    assert rig.seen() == [("reset", 1, 8)]
    assert "--write-timeout" in rig.handler.refusals[0].rule


def test_a_connection_s_window_that_stays_shut() -> None:
    """It holds up every stream, so it ends them all."""
    rig = StreamRig(settings={4: 2**20})
    rig.ask()
    rig.answer(1, bytes(100_000), more=True)
    rig.codec.expire(rig.port.time + 60)
    assert rig.seen()[-1] == goaway(11, last=1)


def test_what_waits_goes_on_when_the_client_reads() -> None:
    """The connection's own back-pressure holds, too."""
    rig = StreamRig()
    rig.ask()
    rig.port.congested = True
    rig.answer(1, b"x", more=True)
    assert rig.seen() == [("headers", 1, "200")]
    assert rig.handler.streams[1].congested
    rig.port.congested = False
    rig.codec.relieved()
    rig.breathe()
    assert rig.seen() == [("data", 1, b"x")]


def test_a_websocket_s_time_is_kept() -> None:
    """A tunnel's deadline is the connection's; what its client leaves open is closed for it."""
    rig = StreamRig()
    rig.feed(rig.headers(1, CONNECT, end=False))
    tunnel = rig.handler.tunnels[0]
    assert rig.codec.deadline > rig.port.time + 100

    class Socket:
        deadline = 1005.0
        expired = 0.0

        def expire(self, now: float) -> None:
            self.expired = now
            self.deadline = now + 1

    tunnel.socket = socket = Socket()  # type: ignore[assignment]
    assert rig.codec.deadline == 1005
    rig.codec.expire(1004)
    assert not socket.expired
    rig.codec.expire(1005)
    assert socket.expired == 1005
    tunnel.socket = None
    tunnel.answer(200, [], b"", more=True)
    tunnel.close()
    rig.breathe()
    assert rig.seen() == [("headers", 1, "200"), ("data", 1, b"", "end")]
    rig.codec.expire(rig.port.time + 2)
    rig.breathe()
    assert rig.seen() == [("reset", 1, 8)]


def test_who_does_not_read_is_not_read() -> None:
    """No window bounds heads: a client that only asks would fill our memory (CVE-2019-9517)."""
    rig = StreamRig()
    port = rig.port
    port.congested = True
    large = [(b"x-large", b"x" * 1000)]
    number, before = 1, len(port.sent)
    while port.reading:
        rig.ask(number)
        rig.answer(number, status=204, headers=large)
        number += 2
    assert AHEAD < len(port.sent) - before < AHEAD + 3000
    port.congested = False
    rig.codec.relieved()
    assert port.reading
    rig.ask(number)
    assert port.reading


def test_a_request_behind_the_last_stream_is_passed_over() -> None:
    """With its body, which was under way, and without harm to those that are answered."""
    rig = drained()
    rig.post(1)
    rig.feed(PONG)
    assert rig.seen() == [goaway(0, last=1)]
    rig.feed(rig.headers(3, POST, end=False), rig.data(3, b"body", end=True))
    rig.feed(raw(7, 0, bytes(7)))
    assert rig.seen() == [goaway(6, last=1)]  # and the last stream is the same as before


def test_the_last_goaway_is_not_put_off_by_a_request() -> None:
    """A client that answers no ping may not ask for ever."""
    rig = StreamRig(Http(http_timeout=0))
    rig.codec.drain()
    rig.post(1)
    assert rig.codec.deadline == rig.port.time + ROUND_TRIP


def test_a_head_under_way_keeps_its_time_when_streams_end() -> None:
    """--head-timeout is not --keep-alive."""
    rig = StreamRig(Http(head_timeout=5, keep_alive=50))
    rig.ask(1)
    rig.feed(raw(1, 3, b"", 1))
    rig.answer(1)
    assert rig.codec.deadline == rig.port.time + 5


def test_a_client_that_leaves_asks_for_nothing_more() -> None:
    """What stands behind its GOAWAY in the same read is neither begun nor judged."""
    rig = StreamRig()
    rig.codec.receive(raw(7, 0, bytes(8)) + rig.headers(1) + raw(7, 0, bytes(7)))
    assert rig.port.ends == ["close"]
    assert not rig.handler.requests
    assert not rig.handler.faults


def test_a_websocket_may_be_the_last_request() -> None:
    """--http2-max-requests counts it."""
    rig = StreamRig(max_requests=1)
    rig.feed(rig.headers(1, CONNECT, end=False))
    assert rig.codec.phase is Phase.LEAVING


def test_nothing_is_read_behind_the_end_of_a_connection() -> None:
    """What follows a client's GOAWAY in the same read begins nothing, and is no fault."""
    for behind in (StreamRig().headers(1), b"\xff" * 9):
        rig = StreamRig()
        rig.feed(raw(7, 0, bytes(8)) + behind)
        assert rig.port.ends == ["close"]
        assert not rig.handler.requests
        assert not rig.handler.faults
        assert rig.seen() == []
