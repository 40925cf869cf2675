"""The cases of `tests/conformance/corpus`: read, fed to a connection in memory, and judged.

What a case may say is written down in `tests/conformance/README.md`. Anything else in its table is
an error, so that no misspelt key tests nothing in silence.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from daphne_supervisor.config import Http
from tests.support import judge
from tests.support.recorder import recorded
from tests.support.transports import Line, service, turn
from tests.support.wire import bytewise, cut

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.judge import Answer

__all__ = ["Case", "Outcome", "Seen", "feed", "load", "slicings"]

#: A request that is valid: behind what was served it is served, behind a refusal it is not.
BEHIND = b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n"
_RANDOM_SLICINGS = 4
_CASE_KEYS = {"title", "source", "options", "request", "leaves"}
_VALID_KEYS = _CASE_KEYS | {"closes", "interim"}
_INVALID_KEYS = _CASE_KEYS | {"status", "log", "headers", "method"}
_REQUEST_KEYS = {"type", "method", "target", "path", "http_version", "headers", "body", "answer"}
_ANSWER_KEYS = {"status", "headers", "body"}


@dataclass(frozen=True)
class Case:
    """A case: its bytes, and what its table says about them.

    `served` are the tables of the requests that must reach the application, in order.
    """

    name: str
    data: bytes
    table: dict[str, Any]
    valid: bool
    served: list[dict[str, Any]]

    @property
    def options(self) -> Http:
        """Return the section of the configuration that the case asks for."""
        named = self.table.get("options", {})
        return Http(**{key.lstrip("-").replace("-", "_"): value for key, value in named.items()})


@dataclass(frozen=True)
class Seen:
    """A request as the application saw it, with all of its body."""

    scope: dict[str, Any]
    body: bytes = b""


@dataclass
class Outcome:
    """What became of a connection."""

    seen: list[Seen] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    """The statuses of the interim responses, which come only to those who wait for them."""
    end: str = "open"
    logged: list[str] = field(default_factory=list)

    def essence(self) -> tuple[Any, ...]:
        """Return what must be the same however the bytes were cut."""
        requests = [
            (each.scope["type"], each.scope.get("method"), each.scope["headers"], each.body)
            for each in self.seen
        ]
        answers = [
            (each.status, [line for line in each.headers if line[0] != b"date"], each.body)
            for each in self.answers
        ]
        return requests, answers, self.end, self.logged


def load(path: Path) -> Case:
    """Read the case whose table is at `path`. Raises `ValueError` if the table is not in order."""
    table = tomllib.loads(path.read_text("utf-8"))
    valid = path.parent.name == "valid"
    unknown = set(table) - (_VALID_KEYS if valid else _INVALID_KEYS)
    for request in table.get("request", []):
        unknown |= set(request) - _REQUEST_KEYS
        unknown |= set(request.get("answer", {})) - _ANSWER_KEYS
    known = {each.name for each in fields(Http)}
    unknown |= {key for key in table.get("options", {}) if key.replace("-", "_") not in known}
    missing = {"title", "source", *(() if valid else ("status", "log"))} - set(table)
    if unknown or missing:
        message = f"{path}: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}"
        raise ValueError(message)
    data = path.with_suffix(".http").read_bytes()
    return Case(f"{path.parent.name}-{path.stem}", data, table, valid, table.get("request", []))


def slicings(case: Case) -> dict[str, list[bytes]]:
    """Return the ways in which the bytes of a case arrive, by name."""
    ways = {"whole": [case.data], "byte by byte": bytewise(case.data)}
    for seed in range(_RANDOM_SLICINGS):
        # The same cuts in every run: what fails once fails again.
        draw = random.Random(f"{case.name} {seed}")  # noqa: S311 - no secret
        places = [draw.randrange(len(case.data) + 1) for _ in range(draw.randint(1, 12))]
        ways[f"cut at {sorted(places)}"] = cut(case.data, places)
    return ways


class _Application:
    """Reads the whole body of each request, remembers it, and answers 200."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            self.seen.append(Seen(scope))
            await send({"type": "websocket.accept"})
            await receive()
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append(Seen(scope, body))
        answer = b"%d bytes" % len(body)
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def feed(case: Case, pieces: list[bytes]) -> Outcome:
    """Let `pieces` arrive on a new connection; return what becomes of it.

    Behind them comes `BEHIND`: whether it is answered shows where the server takes the end of the
    case to be.
    """
    with recorded() as lines:
        application = _Application()
        line = Line(service(application, http=case.options))
        for piece in pieces:
            await _deliver(line, piece)
        if case.table.get("leaves"):
            await line.leave()
            return _outcome(case, application, line, lines)
        outcome = _outcome(case, application, line, lines)
        if not any(each.scope["type"] == "websocket" for each in outcome.seen):
            line.take()
            await _deliver(line, BEHIND)
            _check_behind(line, application.seen[len(outcome.seen) :], outcome)
        await line.leave()
        return outcome


async def _deliver(line: Line, data: bytes) -> None:
    """Let `data` arrive, unless the connection is gone."""
    if line.transport.disconnecting:
        return
    if line.transport.producerState == "paused":
        await turn()
    assert line.reading, "reading has stopped, though the application reads"
    await line.send(data)
    sent = -1
    while sent != len(line.sent):  # each of several requests takes its turn
        sent = len(line.sent)
        await turn()


def _ended(line: Line) -> str:
    if line.aborted:
        return "cut"
    return "closed" if line.transport.disconnecting or line.transport.shut else "open"


def _outcome(case: Case, app: _Application, line: Line, lines: list[str]) -> Outcome:
    end = "left" if case.table.get("leaves") else _ended(line)
    asked = [
        (each.scope.get("method", "GET"), each.scope["type"] == "websocket") for each in app.seen
    ]
    asked.append((case.table.get("method", "GET"), False))
    answers = judge.read(line.sent, asked, ended=end == "closed")
    return Outcome(
        list(app.seen),
        [each for each in answers if each.status >= 200 or each.status == 101],
        [each.status for each in answers if each.status == 100],
        end,
        list(lines),
    )


def _check_behind(line: Line, seen: list[Seen], outcome: Outcome) -> None:
    """Check that a further request is served on an open connection, and on no other."""
    if outcome.end == "open":
        assert [each.scope["path"] for each in seen] == ["/behind"], "lost where requests begin"
    else:
        assert (seen, line.sent) == ([], b""), "something is served behind the end"
