"""Many large bodies on one HTTP/2 connection: each has its share, and memory stays flat."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.support.daphne import APPS, Daphne
from tests.support.http2 import Http2Client
from tests.support.http2_frames import Setting, priority_update, settings, window_update
from tests.support.peak import Peak

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.http2_judge import Answer

COUNT = 100
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
#: What the worker may grow by, whatever is on its way.
MEMORY = 64 * MEBIBYTE
SIZE = 10_000 * KIBIBYTE
PATIENCE = 50.0
_PIECE = 16_384


@pytest.fixture(scope="module")
def server() -> Iterator[Daphne]:
    """Serve with one worker."""
    with Daphne(f"{APPS}:probe", "-w", "1", "--access-log", "/dev/null") as server:
        with Http2Client(server.port) as client:
            client.get("/stream?1000")  # what is imported and made once is no growth
        yield server
        assert "Traceback" not in server.log()


def check_shares(shares: list[int]) -> None:
    """Check that nobody has less than half of the mean, and nobody more than twice."""
    mean = sum(shares) / len(shares)
    assert min(shares) >= mean / 2, sorted(shares)
    assert max(shares) <= mean * 2, sorted(shares)


def peak_of(server: Daphne) -> Peak:
    """Begin to look at the memory of the one worker."""
    (worker,) = server.workers()
    return Peak(worker.pid)


@pytest.mark.parametrize("window", [65_536, SIZE], ids=["small windows", "large windows"])
def test_a_hundred_downloads_of_ten_megabytes(server: Daphne, window: int) -> None:
    """All at once on one connection: fair until the first is complete, and all arrive whole."""
    peak = peak_of(server)
    with Http2Client(server.port, window=window, keeps=False) as client:
        streams = [client.open(f"/stream?{SIZE // KIBIBYTE}") for _ in range(COUNT)]
        answers = [client.judge.answer(stream) for stream in streams]
        client.until(lambda: any(one.ended for one in answers), PATIENCE)
        check_shares([one.size for one in answers])
        client.until(lambda: all(one.ended for one in answers), PATIENCE)
        assert {(one.outcome, one.size) for one in answers} == {("200", SIZE)}
        assert not client.judge.goaways
    assert peak.growth < MEMORY


def test_a_hundred_downloads_that_nobody_reads(server: Daphne) -> None:
    """With windows as large as can be, what the client does not take is not held for it."""
    peak = peak_of(server)
    with Http2Client(server.port, window=2**31 - 65_536, credits_=False) as client:
        for _ in range(COUNT):
            client.open(f"/stream?{SIZE // KIBIBYTE}")
        with Http2Client(server.port) as neighbour:
            for _ in range(50):
                assert neighbour.get("/hello").outcome == "200"
    assert peak.growth < MEMORY


def test_a_hundred_uploads_of_ten_megabytes(server: Daphne) -> None:
    """All at once on one connection: fair at half of it, and every byte arrives."""
    peak = peak_of(server)
    piece = bytes(_PIECE)
    whole = hashlib.sha256(bytes(SIZE)).hexdigest().encode()
    with Http2Client(server.port) as client:
        left = {client.open("/digest", end=False): SIZE for _ in range(COUNT)}
        halved = False
        while left:
            moved = False
            for stream in list(left):
                room = min(client.room(stream), _PIECE, left[stream])
                if room <= 0:
                    continue
                moved = True
                left[stream] -= room
                client.data(stream, piece[:room], end=not left[stream])
                if not left[stream]:
                    del left[stream]
            if not halved and sum(left.values()) <= COUNT * SIZE // 2:
                halved = True
                check_shares([SIZE - each for each in left.values()])
            client.hear(0 if moved else PATIENCE)
            assert not client.ended, client.judge.goaways
        answers = [client.answer(stream, PATIENCE) for stream in range(1, 2 * COUNT, 2)]
        assert {(one.outcome, one.body) for one in answers} == {("200", whole)}
    assert peak.growth < MEMORY


def test_a_hundred_uploads_that_nobody_reads(server: Daphne) -> None:
    """An application that does not read holds up its own uploads, and nobody else's."""
    peak = peak_of(server)
    with Http2Client(server.port) as client:
        deaf = [client.open("/deaf", end=False) for _ in range(COUNT - 1)]
        client.round_trip()
        for stream in deaf:
            while (room := client.room(stream)) > 0:
                client.data(stream, bytes(min(room, _PIECE)))
        client.round_trip()
        assert [client.room(stream) for stream in deaf] == [0] * len(deaf)
        served = client.open("/digest", end=False)
        client.send(served, bytes(MEBIBYTE))
        assert client.answer(served).body == hashlib.sha256(bytes(MEBIBYTE)).hexdigest().encode()
    assert peak.growth < MEMORY


def test_a_stalled_download_does_not_stall_its_neighbours(server: Daphne) -> None:
    """Nine streams whose windows are shut, and one that is taken: it arrives, they stand still."""
    with Http2Client(server.port) as client:
        client.stalled.update(range(1, 18, 2))
        for stream in sorted(client.stalled):
            assert client.open("/stream?100") == stream
        taken = client.open("/stream?1000")
        assert client.answer(taken).size == 1_024_000
        answers = [client.judge.answer(stream) for stream in client.stalled]
        client.until(lambda: all(one.size == 65_535 for one in answers))
        assert client.get("/hello").outcome == "200"
        assert {(one.outcome, one.size) for one in answers} == {("200 begun", 65_535)}


def _held_back(client: Http2Client, *priorities: str | None) -> list[Answer]:
    """Ask for 1 MiB in one piece with each of `priorities`, all of which begin at one moment."""
    client.write(settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    answers = []
    for each in priorities:
        fields = () if each is None else (("priority", each),)
        answers.append(client.judge.answer(client.open("/blob?1024", *fields)))
    client.until(lambda: all(one.status == 200 for one in answers))
    opened = settings((Setting.INITIAL_WINDOW_SIZE, 2**30))
    client.write(window_update(0, 2**30) + opened)
    return answers


def test_bodies_in_one_piece_take_turns(server: Daphne) -> None:
    """Who says nothing of priorities gets twenty of them side by side, not one after the other."""
    with Http2Client(server.port, credits_=False, keeps=False) as client:
        answers = _held_back(client, *[None] * 20)
        client.until(lambda: any(one.ended for one in answers))
        check_shares([one.size for one in answers])
        client.until(lambda: all(one.ended for one in answers))


def test_the_urgent_comes_first(server: Daphne) -> None:
    """What is said to be urgent is complete before anything else has begun (RFC 9218)."""
    with Http2Client(server.port, credits_=False, keeps=False) as client:
        *others, urgent = _held_back(client, "u=6, i", "u=6, i", None, "u=7", "u=0")
        client.until(lambda: urgent.ended)
        # One read may hold the beginning of what is next.
        sizes = [one.size for one in others]
        assert sizes[0] == sizes[1] == sizes[3] == 0
        assert sizes[2] <= 256 * KIBIBYTE
        client.until(lambda: all(one.ended for one in others))


def test_one_after_the_other(server: Daphne) -> None:
    """Bodies that are of no use in part, as a client says with no `i`, do not share."""
    with Http2Client(server.port, credits_=False, keeps=False) as client:
        first, second = _held_back(client, "u=3", "u=3")
        client.until(lambda: first.ended)
        assert second.size <= 256 * KIBIBYTE
        client.until(lambda: second.ended)


def test_a_priority_that_changes(server: Daphne) -> None:
    """PRIORITY_UPDATE moves a request that waits already."""
    with Http2Client(server.port, credits_=False, keeps=False) as client:
        client.write(settings((Setting.INITIAL_WINDOW_SIZE, 0)))
        streams = [client.open("/blob?1024", ("priority", "u=5")) for _ in range(3)]
        answers = [client.judge.answer(stream) for stream in streams]
        client.until(lambda: all(one.status == 200 for one in answers))
        client.write(priority_update(streams[2], b"u=1"))
        client.write(window_update(0, 2**30) + settings((Setting.INITIAL_WINDOW_SIZE, 2**30)))
        client.until(lambda: answers[2].ended)
        assert answers[0].size + answers[1].size <= 256 * KIBIBYTE
        client.until(lambda: all(one.ended for one in answers))
