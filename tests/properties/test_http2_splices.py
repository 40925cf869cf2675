"""The frames of the HTTP/2 corpus in any order, on any stream, with a wrong byte here and there.

Whatever a client says, the server says only what a server may say, and nothing in it goes wrong.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.http2_corpus import load
from tests.support.http2_frames import PREFACE, settings
from tests.support.http2_judge import Judge
from tests.support.http2_notation import step
from tests.support.transports import PATIENCE, Call, Line, Stage, service, turn

CORPUS = Path(__file__).parents[1] / "conformance" / "http2"
PEER = ("127.0.0.1", 54321)
_LONGEST = 500
_LATER = 100.0
"""Seconds after which every deadline has passed."""

STEPS = sorted(
    {
        made
        for path in CORPUS.glob("*/*.toml")
        if path.stem != "upgrade"
        for case in load(path)
        for each in case.table["send"]
        if each != "wait" and len(made := step(each)) <= _LONGEST
    }
)


def moved(frame: bytes, stream: int | None) -> bytes:
    """Return `frame` on another stream, if there is one."""
    return frame if stream is None else frame[:5] + stream.to_bytes(4) + frame[9:]


def spoilt(frame: bytes, place: int, byte: int | None) -> bytes:
    """Return `frame` with another byte at a place, if there is one."""
    place %= max(len(frame), 1)
    return frame if byte is None else frame[:place] + bytes([byte]) + frame[place + 1 :]


streams = st.none() | st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7])
splices = st.builds(
    spoilt,
    st.builds(moved, st.sampled_from(STEPS), streams),
    st.integers(0, 40),
    st.one_of(st.none(), st.none(), st.none(), st.integers(0, 255)),
)


class _Errors(logging.Handler):
    """Keeps what is logged with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()}: {record.exc_info and record.exc_info[1]!r}")


async def _answer(call: Call) -> None:
    """Answer as an application does whose client may be gone, or let nothing through."""
    if call.scope["type"] == "http":
        await call.start()
        await call.body(b"answer")
    else:
        await call.receive()
        await call.send({"type": "websocket.accept"})


async def _play(pieces: list[bytes]) -> None:
    """Let `pieces` arrive, answer what is asked, let time pass, and leave."""
    stage, judge = Stage(), Judge()
    line = Line(service(stage), PEER)
    answers: list[asyncio.Task[None]] = []
    for piece in [PREFACE + settings(), *pieces]:
        if line.transport.disconnecting or line.transport.shut:
            break
        await line.send(piece)
        answers += [asyncio.create_task(_answer(call)) for call in stage.calls[len(answers) :]]
        await turn()
        judge.hear(line.take())
    if not line.transport.disconnecting:
        line.connection.expire(line.connection.now() + _LATER)
        await turn()
    judge.hear(line.take())
    assert judge.rest == b"", "half a frame"
    await line.leave()
    for call in stage.calls:
        await call.returns()
    ends = await asyncio.gather(*answers, return_exceptions=True)
    assert [end for end in ends if end is not None and not isinstance(end, OSError)] == []


@given(st.lists(splices, min_size=1, max_size=10))
def test_splices(pieces: list[bytes]) -> None:
    """The judge finds nothing in what the server says, and the log no error."""
    errors, logger = _Errors(), logging.getLogger("daphne_supervisor")
    logger.addHandler(errors)
    try:
        asyncio.run(asyncio.wait_for(_play(pieces), PATIENCE))
    finally:
        logger.removeHandler(errors)
    assert errors.lines == []
