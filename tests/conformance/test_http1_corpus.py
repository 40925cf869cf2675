"""Every case of the corpus, whole and in pieces: see README.md beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.corpus import Case, Outcome, Seen, feed, load, slicings
from tests.support.garbage import no_garbage
from tests.support.transports import on_loop

if TYPE_CHECKING:
    from tests.support.judge import Answer

CORPUS = Path(__file__).parent / "corpus"
#: What was promised; cases are added, and one is removed only because it was wrong.
FEWEST = 300

TABLES = sorted(CORPUS.glob("*/*.toml"))
CASES = [load(path) for path in TABLES]


def octets(text: str) -> bytes:
    """Return the bytes that a text of a case stands for: each character is one."""
    return text.encode("latin-1")


def listed(value: Any) -> list[Any]:
    """Return `value` as a list: a case may name one or several."""
    return value if isinstance(value, list) else [value]


def has_headers(lines: Any, wanted: dict[str, Any]) -> None:
    """Check the values of the headers that a case names, and of no others."""
    for name, value in wanted.items():
        found = [held for key, held in lines if key == octets(name.lower())]
        if name.lower() == "connection":
            found = [part.strip().lower() for held in found for part in held.split(b",")]
            assert sorted(found) == sorted(octets(each).lower() for each in listed(value)), name
        else:
            assert found == [octets(each) for each in listed(value)], name


def has_request(seen: Seen, wanted: dict[str, Any]) -> None:
    """Check a request as the application saw it."""
    scope, method = seen.scope, wanted.get("method", "GET")
    assert scope["type"] == wanted.get("type", "http")
    if scope["type"] == "http":
        assert scope["method"] == method
    assert scope["http_version"] == wanted.get("http_version", "1.1")
    raw_path, _, query = octets(wanted.get("target", "/")).partition(b"?")
    assert (scope["raw_path"], scope["query_string"]) == (raw_path, query)
    assert scope["path"] == wanted.get("path", raw_path.decode("latin-1"))
    assert all(name == name.lower() for name, _ in scope["headers"])
    has_headers(scope["headers"], wanted.get("headers", {}))
    assert seen.body == octets(wanted.get("body", ""))


def has_answer(answer: Answer, seen: Seen, wanted: dict[str, Any]) -> None:
    """Check the answer to a request that was served."""
    switched = seen.scope["type"] == "websocket"
    assert answer.status == wanted.get("status", 101 if switched else 200)
    bodiless = switched or seen.scope["method"] == "HEAD"
    body = b"" if bodiless else b"%d bytes" % len(seen.body)
    assert answer.body == body
    has_headers(answer.headers, wanted.get("headers", {}))


def has_served(outcome: Outcome, case: Case) -> None:
    """Check the requests that the application was to see, and their answers."""
    assert len(outcome.seen) == len(case.served), [each.scope for each in outcome.seen]
    for number, (seen, wanted) in enumerate(zip(outcome.seen, case.served, strict=True)):
        has_request(seen, wanted)
        if not case.table.get("leaves"):
            has_answer(outcome.answers[number], seen, wanted.get("answer", {}))


def check_valid(outcome: Outcome, case: Case) -> None:
    """Check that everything was served, and nothing else was said."""
    has_served(outcome, case)
    assert len(outcome.answers) == len(case.served), outcome.answers
    if not case.table.get("leaves"):
        assert outcome.end == ("closed" if case.table.get("closes") else "open")
    if case.table.get("closes"):
        assert b"close" in outcome.answers[-1].options
    assert outcome.logged == []


def check_invalid(outcome: Outcome, case: Case) -> None:
    """Check that the first wrong byte ended it: one answer, one line in the log, the end."""
    has_served(outcome, case)
    assert len(outcome.answers) == len(case.served) + 1, outcome.answers
    answer = outcome.answers[-1]
    assert (answer.status, outcome.end) in [
        (each, "closed") for each in listed(case.table["status"])
    ]
    assert b"close" in answer.options
    assert answer.values(b"content-type") == [b"text/html; charset=utf-8"]
    assert len(answer.values(b"content-length")) == 1
    assert bool(answer.body) != (case.table.get("method") == "HEAD")
    has_headers(answer.headers, case.table.get("headers", {}))
    [line] = outcome.logged
    assert line.isprintable()
    assert f"refused {answer.status}" in line
    assert any(rule.lower() in line.lower() for rule in listed(case.table["log"])), line


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@on_loop
async def test_case(case: Case) -> None:
    """What the case says holds for its bytes whole, one by one, and cut at random places."""
    first = None
    for way, pieces in slicings(case).items():
        outcome = await feed(case, pieces)
        (check_valid if case.valid else check_invalid)(outcome, case)
        interim = case.table.get("interim", [])
        # A client that sends its body at once is not asked for it (RFC 9110 section 10.1.1).
        assert outcome.interim in ([interim] if way == "byte by byte" else [interim, []])
        first = first or outcome
        assert outcome.essence() == first.essence(), f"{way} differs from whole"


@on_loop
async def test_nothing_waits_for_the_collector() -> None:
    """Whatever a client sends: those who mean harm could let megabytes wait for it."""
    with no_garbage() as check:
        for case in CASES:
            await feed(case, slicings(case)["whole"])
            check(case.name)


def test_every_case_is_complete() -> None:
    """Bytes and tables come in pairs, and there are as many as promised."""
    assert sorted(CORPUS.glob("*/*")) == sorted(
        path for table in TABLES for path in (table, table.with_suffix(".http"))
    )
    assert len(TABLES) >= FEWEST


def test_no_case_is_there_twice() -> None:
    """Each case has a title of its own, and differs from all others in bytes or options."""
    titles = [case.table["title"] for case in CASES]
    assert sorted(set(titles)) == sorted(titles)
    inputs = [(case.data, str(case.table.get("options"))) for case in CASES]
    assert len(set(inputs)) == len(inputs)


def test_line_ends_are_as_they_were_written() -> None:
    """Nothing between the author and the test has rewritten the line ends of a case."""
    first = (CORPUS / "valid" / "001.http").read_bytes()
    assert first.count(b"\r\n") == first.count(b"\n") > 0
