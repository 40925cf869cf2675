"""The cases of `tests/conformance/http2`: read, fed to a connection in memory, and told.

What a case may say is written down in `tests/conformance/README.md`. Anything else in its table is
an error, so that no misspelt key tests nothing in silence.
"""

from __future__ import annotations

import asyncio
import random
import re
import tomllib
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from daphne_supervisor.config import Http, Http2, WebSocket
from tests.support.http2_frames import PREFACE, get, settings
from tests.support.http2_judge import Judge
from tests.support.http2_notation import step
from tests.support.recorder import recorded
from tests.support.transports import Line, service, turn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.http2_judge import Answer, GoAway

__all__ = ["Case", "Outcome", "Seen", "feed", "load", "slicings"]

#: A peer that is trusted with cleartext HTTP/2.
_PEER = ("127.0.0.1", 54321)
_RANDOM_SLICINGS = 2
#: Above so many bytes a case does not come byte by byte but in pieces: what is large is filling.
_LONG = 3000
_PIECE = 127
_SECTIONS = {"http": Http, "http2": Http2, "websocket": WebSocket}
_KEYS = {
    "title",
    "source",
    "options",
    "greets",
    "upgrade",
    "send",
    "streams",
    "goaway",
    "log",
    "lines",
    "requests",
    "answers",
    "acks",
    "pongs",
    "leaves",
}
_REQUEST_KEYS = {
    "type",
    "method",
    "target",
    "path",
    "headers",
    "body",
    "size",
    "cut",
    "perhaps",
}
_ANSWER_KEYS = {"headers", "body", "size", "interim", "trailers"}


@dataclass(frozen=True)
class Case:
    """A case: `parts` of bytes, between which the client waits, and what its table says of them."""

    name: str
    parts: list[bytes]
    table: dict[str, Any]
    valid: bool

    @property
    def sections(self) -> dict[str, Any]:
        """Return the sections of the configuration that the case asks for."""
        given = {
            key.lstrip("-").replace("-", "_"): value
            for key, value in self.table.get("options", {}).items()
        }
        sections = {}
        for name, section in _SECTIONS.items():
            known = {each.name for each in fields(section)}
            mine = {key: key.removeprefix("http2_") for key in given}
            mine = {key: short for key, short in mine.items() if short in known}
            sections[name] = section(**{short: given.pop(key) for key, short in mine.items()})
        if given:
            message = f"{self.name}: unknown options {sorted(given)}"
            raise ValueError(message)
        return sections

    @property
    def behind(self) -> int:
        """The next stream that the client may open."""
        streams: list[int] = [
            each.get("request", each.get("stream", 0))
            for each in self.table["send"]
            if each != "wait" and ("request" in each or each.get("frame") == "HEADERS")
        ]
        streams += [1 if self.table.get("upgrade") else -1]
        return (max(streams) + 1) | 1


@dataclass
class Seen:
    """A request as the application saw it; its body is whole unless it was `cut`."""

    scope: dict[str, Any]
    body: bytes = b""
    cut: bool = True


@dataclass
class Outcome:
    """What became of a connection."""

    seen: list[Seen]
    judge: Judge
    end: str
    logged: list[str] = field(default_factory=list)

    @property
    def answers(self) -> dict[int, Answer]:
        """What was said on each stream, the silent ones left out."""
        return {stream: one for stream, one in self.judge.answers.items() if one != type(one)()}

    @property
    def goaways(self) -> list[GoAway]:
        """The GOAWAY frames, in order."""
        return self.judge.goaways

    def essence(self, case: Case) -> tuple[Any, ...]:
        """Return what must be the same however the bytes of `case` were cut."""
        perhaps = {
            each.get("target") for each in case.table.get("requests", []) if each.get("perhaps")
        }
        requests = [
            (each.scope["headers"], each.body)
            for each in self.seen
            if not each.cut and each.scope["path"] not in perhaps
        ]
        # A server that has answered before the end of the body may ask for no more of it.
        answers = {
            stream: one.outcome.removesuffix(" NO_ERROR") for stream, one in self.answers.items()
        }
        bodies = {stream: one.body for stream, one in self.answers.items() if one.complete}
        codes = [each.code for each in self.goaways]
        return requests, answers, bodies, codes, self.end, self.logged


def load(path: Path) -> list[Case]:
    """Read the cases at `path`. Raises `ValueError` if one of them is not in order."""
    tables = tomllib.loads(path.read_text("utf-8"))
    _known(path, tables, {"case"})
    return [_case(path, table) for table in tables["case"]]


def _known(where: object, table: dict[str, Any], keys: set[str]) -> None:
    if unknown := set(table) - keys:
        message = f"{where}: unknown keys {sorted(unknown)}"
        raise ValueError(message)


def _case(path: Path, table: dict[str, Any]) -> Case:
    valid = path.parent.name == "valid"
    where = f"{path}: {table.get('title')}"
    _known(where, table, _KEYS - {"goaway", "log", "lines"} if valid else _KEYS)
    for request in table.get("requests", []):
        _known(where, request, _REQUEST_KEYS)
    for answer in table.get("answers", {}).values():
        _known(where, answer, _ANSWER_KEYS)
    if missing := {"title", "source", "send", "streams"} - set(table):
        message = f"{where}: missing keys {sorted(missing)}"
        raise ValueError(message)
    parts = [PREFACE + settings() if table.get("greets", True) else b""]
    for each in table["send"]:
        if each == "wait":
            parts.append(b"")
        else:
            parts[-1] += step(each)
    slug = re.sub(r"[^a-z0-9]+", "-", table["title"].lower()).strip("-")
    return Case(f"{path.parent.name}-{path.stem}-{slug}", parts, table, valid)


def slicings(case: Case) -> dict[str, list[list[bytes]]]:
    """Return the ways in which the parts of a case arrive, by name."""
    size = max(map(len, case.parts))
    ways = {"whole": [[part] for part in case.parts]}
    step = _PIECE if size > _LONG else 1
    ways["bit by bit"] = [
        [part[at : at + step] for at in range(0, len(part), step)] for part in case.parts
    ]
    for seed in range(_RANDOM_SLICINGS):
        # The same cuts in every run: what fails once fails again.
        draw = random.Random(f"{case.name} {seed}")  # noqa: S311 - no secret
        ways[f"cut at random, {seed}"] = [_cut(part, draw) for part in case.parts]
    return ways


def _cut(part: bytes, draw: random.Random) -> list[bytes]:
    places = sorted({0, len(part), *(draw.randrange(len(part) + 1) for _ in range(5))})
    return [part[start:end] for start, end in pairwise(places)]


class _Application:
    """Reads the body of each request, and answers as its path says; README.md tells how."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen = Seen(scope)
        self.seen.append(seen)
        if scope["type"] == "websocket":
            await self._websocket(seen, receive, send)
            return
        path = scope["path"]
        if path == "/deaf":
            await asyncio.Event().wait()
        if path == "/early":
            await self._answer(send, b"early")
        whole = await self._read(seen, receive)
        if path == "/hold":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif whole and path != "/early":
            size = path.removeprefix("/size/")
            await self._answer(
                send, bytes(int(size)) if size != path else b"%d bytes" % len(seen.body), path
            )

    @staticmethod
    async def _read(seen: Seen, receive: Any) -> bool:
        """Read the body; return whether it came whole."""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return False
            seen.body += message["body"]
            more = message["more_body"]
        seen.cut = False
        return True

    @staticmethod
    async def _answer(send: Any, body: bytes, path: str = "") -> None:
        if path == "/hint":
            await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        trailers = path == "/trailers"
        headers = [(b"content-type", b"text/plain")]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start | ({"trailers": True} if trailers else {}))
        await send({"type": "http.response.body", "body": body})
        if trailers:
            lines = [(b"x-digest", b"abc")]
            await send({"type": "http.response.trailers", "headers": lines})

    @staticmethod
    async def _websocket(seen: Seen, receive: Any, send: Any) -> None:
        await receive()
        seen.cut = False
        if seen.scope["path"] == "/refuse":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            kept = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
            await send({"type": "websocket.send", **kept})


async def feed(case: Case, pieces: list[list[bytes]]) -> Outcome:
    """Let `pieces` arrive on a new connection, part by part; return what becomes of it.

    Behind them comes one more request on the next stream: on a connection that goes on it reaches
    the application, and on no other.
    """
    with recorded() as lines:
        application = _Application()
        line = Line(service(application, **case.sections), _PEER)
        judge = Judge(upgraded=case.table.get("upgrade", False))
        for part in pieces:
            for piece in part:
                await _deliver(line, judge, piece)
            await _deliver(line, judge, b"")
        outcome = Outcome(list(application.seen), judge, _ended(line))
        outcome.logged = list(lines)
        if not case.table.get("leaves"):
            told = dict(outcome.answers)
            await _deliver(line, judge, get(case.behind, b"/behind"))
            _check_behind(line, application.seen[len(outcome.seen) :], outcome)
            outcome.judge.answers = told
        await line.leave()
        assert lines == outcome.logged, "said at the end"
        return outcome


async def _deliver(line: Line, judge: Judge, data: bytes) -> None:
    """Let `data` arrive, unless the connection is gone; hear what is said to it."""
    if not (line.transport.disconnecting or line.transport.shut):
        sent = -1  # without data: look at least once
        if data:
            assert line.reading, "reading has stopped, though the application reads"
            sent = len(line.sent)
            await line.send(data)
        while sent != len(line.sent):
            sent = len(line.sent)
            await turn()
    judge.hear(line.take())


def _ended(line: Line) -> str:
    if line.aborted:
        return "cut"
    return "closed" if line.transport.disconnecting or line.transport.shut else "open"


def _check_behind(line: Line, seen: list[Seen], outcome: Outcome) -> None:
    """Check that a further request is served on an open connection, and on no other."""
    assert outcome.judge.rest == b"", "half a frame"
    if outcome.end == "open":
        assert [each.scope["path"] for each in seen] == ["/behind"], "nothing is served any more"
    else:
        assert (seen, line.sent) == ([], b""), "something is served behind the end"
