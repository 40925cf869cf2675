"""The Autobahn TestSuite against the running server: the real master, real workers, an echo.

`make test` runs a short form, all of sections 1 to 7 and 10 and samples of the long ones; `make
conformance` runs every case. What is accepted beside OK stands in `autobahn/expected.toml`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.autobahn import Expectations, Verdict, drive, judge, read, summary
from tests.support.daphne import APPS, Daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPECTED = Path(__file__).parent / "autobahn" / "expected.toml"

LARGEST = str(16 * 1024 * 1024)
"""Bytes of the largest message that the suite wants echoed: cases 9.1.6 and 9.2.6."""
FRAGMENTS = str(4 * 1024 * 1024 // 64)
"""Most fragments of one of the suite's messages: cases 9.3.1 and 9.4.1."""
QUIET = ("--access-log", os.devnull)
LIMITS = (
    *("--websocket-max-message-size", LARGEST),
    *("--websocket-max-frame-size", LARGEST),
    *("--websocket-max-fragments", FRAGMENTS),
)
COMPRESSION = ("--websocket-compression", "--websocket-compression-min-size", "0")
#: Everything that a client may ask for, so that it is negotiated and used.
TAKEOVER = (
    *COMPRESSION,
    "--websocket-compression-context-takeover",
    *("--websocket-compression-window-bits", "15"),
)

SHORT, LONG = 50.0, 3600.0
"""Seconds for a run. The short form takes ten; sections 12 and 13 move gigabytes."""

# One of each kind; some are cut into many frames, and 13.2.1 is too small to be compressed.
SAMPLES_OF_LIMITS = ["9.1.1", "9.2.1", "9.3.6", "9.4.6", "9.5.6", "9.7.1", "9.8.1"]
SAMPLES_OF_COMPRESSION = [
    "12.1.1",
    "12.2.3",
    "12.3.11",
    "12.5.4",
    "13.2.1",
    *(f"13.{n}.4" for n in range(1, 8)),
]


@pytest.fixture(scope="module")
def expectations() -> Expectations:
    """Return what is accepted."""
    return Expectations.load(EXPECTED)


@pytest.fixture(scope="module")
def plain() -> Iterator[Daphne]:
    """Return an echo that takes messages as large as the suite's."""
    with Daphne(f"{APPS}:echo", "--workers", "2", *QUIET, *LIMITS) as server:
        yield server


def conforms(server: Daphne, verdicts: dict[str, Verdict], expectations: Expectations) -> None:
    """Check the verdicts, and that the server has taken it all without a traceback or a death."""
    print(summary(verdicts))  # noqa: T201 - what `make conformance` shows
    wrong = judge(verdicts, expectations)
    assert not wrong, "\n".join(wrong)
    log = server.log()
    assert "Traceback" not in log
    assert "crashed" not in log


def count(expectations: Expectations, sections: list[str]) -> int:
    """Return how many cases `sections` have."""
    return sum(expectations.sections[section] for section in sections)


def whole(sections: list[str]) -> list[str]:
    """Return the globs for all cases of `sections`."""
    return [f"{section}.*" for section in sections]


def test_frames_messages_and_closing(
    plain: Daphne, expectations: Expectations, tmp_path: Path
) -> None:
    """Every case of sections 1 to 7 and 10: what RFC 6455 says of frames, UTF-8 and closing."""
    sections = ["1", "2", "3", "4", "5", "6", "7", "10"]
    verdicts = drive(plain.port, whole(sections), tmp_path, patience=SHORT, parallel=4)
    assert len(verdicts) == count(expectations, sections)
    conforms(plain, verdicts, expectations)


def test_samples_of_limits(plain: Daphne, expectations: Expectations, tmp_path: Path) -> None:
    """A case of each kind in section 9: large messages, many fragments, many messages."""
    verdicts = drive(plain.port, SAMPLES_OF_LIMITS, tmp_path, patience=SHORT)
    assert sorted(verdicts) == SAMPLES_OF_LIMITS
    conforms(plain, verdicts, expectations)


def test_samples_of_compression(expectations: Expectations, tmp_path: Path) -> None:
    """Some cases of sections 12 and 13: each kind of data, each offer of parameters."""
    with Daphne(f"{APPS}:echo", *QUIET, *LIMITS, *TAKEOVER) as server:
        verdicts = drive(server.port, SAMPLES_OF_COMPRESSION, tmp_path, patience=SHORT)
        assert sorted(verdicts) == sorted(SAMPLES_OF_COMPRESSION)
        conforms(server, verdicts, expectations)


@pytest.mark.long
@pytest.mark.timeout(LONG)
def test_limits(plain: Daphne, expectations: Expectations, tmp_path: Path) -> None:
    """Every case of section 9: up to 16 MiB in a message and 65536 fragments."""
    verdicts = drive(plain.port, ["9.*"], tmp_path, patience=LONG)
    assert len(verdicts) == count(expectations, ["9"])
    conforms(plain, verdicts, expectations)


@pytest.mark.long
@pytest.mark.timeout(LONG)
@pytest.mark.parametrize(
    ("policy", "sections"),
    [(COMPRESSION, ["12", "13"]), (TAKEOVER, ["13"])],
    ids=["default", "takeover"],
)
def test_compression(
    policy: tuple[str, ...], sections: list[str], expectations: Expectations, tmp_path: Path
) -> None:
    """Every case of sections 12 and 13; those about parameters also with context takeover."""
    with Daphne(f"{APPS}:echo", "--workers", "2", *QUIET, *LIMITS, *policy) as server:
        verdicts = drive(server.port, whole(sections), tmp_path, patience=LONG)
        assert len(verdicts) == count(expectations, sections)
        conforms(server, verdicts, expectations)


# -- the judge itself --


def test_the_suite_has_its_517_cases(expectations: Expectations) -> None:
    """No section is left out, and each exception gives a reason."""
    assert sum(expectations.sections.values()) == 517
    assert set(expectations.sections) == {str(n) for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)}


def report(directory: Path, **verdicts: tuple[str, str]) -> Path:
    """Write a report as the suite does, with the cases' dots as underscores; return its path."""
    cases = {
        re.sub("_", ".", name.removeprefix("case")): {"behavior": first, "behaviorClose": second}
        for name, (first, second) in verdicts.items()
    }
    path = directory / "index.json"
    path.write_text(json.dumps({"daphne": cases}))
    return path


@pytest.mark.parametrize(
    "verdict",
    [
        ("FAILED", "OK"),
        ("UNIMPLEMENTED", "OK"),
        ("NON-STRICT", "OK"),
        ("INFORMATIONAL", "INFORMATIONAL"),
        ("ERROR", "FAILED"),
        ("OK", "UNCLEAN"),
        ("OK", "WRONG CODE"),
        ("OK", "FAILED BY CLIENT"),
    ],
    ids=" ".join,
)
def test_a_case_that_is_not_named_has_to_be_ok(verdict: tuple[str, str], tmp_path: Path) -> None:
    """Anything but OK, of the messages or of the closing, is found."""
    verdicts = read(report(tmp_path, case1_1_1=("OK", "OK"), case1_1_2=verdict))
    assert judge(verdicts, Expectations({}, {})) == [f"1.1.2: {Verdict(*verdict)}"]


@pytest.mark.parametrize("verdict", [("FAILED", "OK"), ("NON-STRICT", "UNCLEAN")], ids=" ".join)
def test_a_named_case_may_not_get_worse(verdict: tuple[str, str], tmp_path: Path) -> None:
    """An exception accepts the two verdicts that it names, or OK, and nothing else."""
    named = Expectations({}, {case: Verdict("NON-STRICT") for case in ("3.2", "3.3", "3.4")})
    others = {"case3_3": ("NON-STRICT", "OK"), "case3_4": ("OK", "OK")}
    verdicts = read(report(tmp_path, case3_2=verdict, **others))
    assert judge(verdicts, named) == [f"3.2: {Verdict(*verdict)}"]


@pytest.mark.parametrize(
    "entry",
    [
        'cases = ["3.2", "3.2"]\nreason = "twice"',
        'cases = ["8.1"]\nreason = "no such section"',
        'cases = ["3.2"]\nreason = " "',
    ],
)
def test_an_exception_has_to_be_justified(entry: str, tmp_path: Path) -> None:
    """A case that is named twice, without a reason or outside the sections is refused."""
    path = tmp_path / "expected.toml"
    verdict = 'behavior = "NON-STRICT"\nclose = "OK"'
    path.write_text(f"[sections]\n3 = 7\n[[exceptions]]\n{entry}\n{verdict}\n")
    with pytest.raises(ValueError, match=r"3\.2|8\.1"):
        Expectations.load(path)
