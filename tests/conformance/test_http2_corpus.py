"""Every case of the HTTP/2 corpus, whole and in pieces: see README.md beside this file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.garbage import no_garbage
from tests.support.http2_corpus import Case, Outcome, Seen, feed, load, slicings
from tests.support.http2_notation import octets
from tests.support.transports import on_loop

if TYPE_CHECKING:
    from tests.support.http2_judge import Answer

CORPUS = Path(__file__).parent / "http2"
#: What was promised; cases are added, and one is removed only because it was wrong.
FEWEST = 350

FILES = sorted(CORPUS.glob("*/*.toml"))
CASES = [case for path in FILES for case in load(path)]


def listed(value: Any) -> list[Any]:
    """Return `value` as a list: a case may name one or several."""
    return value if isinstance(value, list) else [value]


def has_headers(lines: Any, wanted: dict[str, Any]) -> None:
    """Check the values of the headers that a case names, and of no others."""
    for name, value in wanted.items():
        found = [held for key, held in lines if key == octets(name)]
        assert found == [octets(each) for each in listed(value)], name


def has_request(seen: Seen, wanted: dict[str, Any]) -> None:
    """Check a request as the application saw it."""
    scope = seen.scope
    assert scope["type"] == wanted.get("type", "http")
    if scope["type"] == "http":
        assert scope["method"] == wanted.get("method", "GET")
    assert scope["http_version"] == "2"
    raw_path, _, query = octets(wanted.get("target", "/")).partition(b"?")
    assert (scope["raw_path"], scope["query_string"]) == (raw_path, query)
    assert scope["path"] == wanted.get("path", raw_path.decode("latin-1"))
    assert [name for name, _ in scope["headers"] if name != name.lower()] == []
    assert [name for name, _ in scope["headers"] if name.startswith(b":")] == []
    has_headers(scope["headers"], wanted.get("headers", {}))
    assert seen.cut == wanted.get("cut", False)
    if not seen.cut:
        body = bytes(wanted["size"]) if "size" in wanted else octets(wanted.get("body", ""))
        assert seen.body == body


def has_served(outcome: Outcome, case: Case) -> None:
    """Check the requests that the application was to see, and no others."""
    seen = list(outcome.seen)
    for wanted in case.table.get("requests", []):
        # Whether it is served at all can depend on how the bytes come.
        perhaps = wanted.get("perhaps", False)
        if perhaps and (not seen or seen[0].scope["path"] != wanted["target"]):
            continue
        assert seen, f"not served: {wanted}"
        one = seen.pop(0)
        has_request(one, {**wanted, "cut": one.cut} if perhaps else wanted)
    assert [each.scope for each in seen] == [], "more than was to be served"


def has_answer(answer: Answer, wanted: dict[str, Any]) -> None:
    """Check what a case says about the answer on a stream."""
    has_headers(answer.headers, wanted.get("headers", {}))
    has_headers(answer.trailers, wanted.get("trailers", {}))
    assert [status for status, _ in answer.interim] == wanted.get("interim", [])
    if "body" in wanted:
        assert answer.body == octets(wanted["body"])
    if "size" in wanted:
        assert len(answer.body) == wanted["size"]


def has_answers(outcome: Outcome, case: Case) -> None:
    """Check what was said on each stream, and that nothing was on the others."""
    told = {stream: one.outcome for stream, one in outcome.answers.items()}
    wanted = {int(stream): listed(each) for stream, each in case.table["streams"].items()}
    for stream, allowed in wanted.items():
        assert told.pop(stream, "silent") in map(str, allowed), (stream, told)
    assert told == {}, "on other streams"
    for stream, answer in case.table.get("answers", {}).items():
        has_answer(outcome.judge.answer(int(stream)), answer)


def has_end(outcome: Outcome, case: Case) -> None:
    """Check whether the connection has ended, and what was said about it, here and in the log."""
    codes = [each.code.name for each in outcome.goaways]
    allowed = listed(case.table.get("goaway", "none"))
    if outcome.end == "open" and "none" in allowed:
        assert codes == []
    else:
        assert outcome.end == "closed"
        assert len(codes) == 1, codes
        assert codes[0] in allowed
    assert [line for line in outcome.logged if not line.isprintable()] == []
    if case.valid:
        assert outcome.logged == []
        return
    assert len(outcome.logged) == case.table.get("lines", 1), outcome.logged
    line = outcome.logged[-1]
    assert all(code in line for code in codes), line
    assert any(rule in line for rule in listed(case.table.get("log", ""))), line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@on_loop
async def test_case(case: Case) -> None:
    """What the case says holds for its bytes whole, one by one, and cut at random places."""
    first = None
    for way, pieces in slicings(case).items():
        outcome = await feed(case, pieces)
        has_served(outcome, case)
        has_answers(outcome, case)
        has_end(outcome, case)
        assert outcome.judge.acks == case.table.get("acks", outcome.judge.acks)
        assert outcome.judge.pongs == [octets(each) for each in case.table.get("pongs", [])]
        first = first or outcome
        assert outcome.essence(case) == first.essence(case), f"{way} differs from whole"


@on_loop
async def test_nothing_waits_for_the_collector() -> None:
    """Whatever a client sends: those who mean harm could let megabytes wait for it."""
    with no_garbage() as check:
        for case in CASES:
            await feed(case, slicings(case)["whole"])
            check(case.name)


def test_there_are_as_many_cases_as_promised() -> None:
    """A file that is moved or misnamed does not take its cases away in silence."""
    assert len(CASES) >= FEWEST
    assert {path.parent.name for path in FILES} == {"valid", "invalid"}


def test_no_case_is_there_twice() -> None:
    """Each case has a title of its own, and differs from all others in bytes or options."""
    titles = Counter(case.table["title"] for case in CASES)
    assert [title for title, count in titles.items() if count > 1] == []
    inputs = Counter((*case.parts, str(case.table.get("options"))) for case in CASES)
    assert [each for each, count in inputs.items() if count > 1] == []
