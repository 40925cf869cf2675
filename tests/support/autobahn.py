"""Drives the cases of the Autobahn TestSuite against a server, and judges their verdicts.

`kosoku` runs the suite's cases on a current Python and writes the suite's report. It runs in a
process of its own: imported, it would put modules named `autobahn` in front of the real ones.

A case has two verdicts, on the messages and on the closing handshake. Both have to be OK, unless a
table of expectations names the case, what else its verdicts may be, and why.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Expectations", "Verdict", "drive", "judge", "read", "summary"]

_FINE = "OK"
SUITE = Path(__file__).with_name("autobahn_suite.py")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite says of one case: of its messages, and of how the connection ended."""

    behavior: str
    close: str = _FINE

    def __str__(self) -> str:
        """Return it in words; the closing handshake is mentioned only if it was not OK."""
        return self.behavior if self.close == _FINE else f"{self.behavior}, close {self.close}"


@dataclass(frozen=True, slots=True)
class Expectations:
    """How many cases each section has, and which verdicts other than OK are accepted."""

    sections: Mapping[str, int]
    exceptions: Mapping[str, Verdict]

    @classmethod
    def load(cls, path: Path) -> Expectations:
        """Read the TOML file at `path`; every exception in it has to give a reason.

        Raises `ValueError` for a case that is named twice, gives no reason or has no section.
        """
        table = tomllib.loads(path.read_text())
        exceptions: dict[str, Verdict] = {}
        for entry in table["exceptions"]:
            for case in entry["cases"]:
                known = case.partition(".")[0] in table["sections"]
                if case in exceptions or not known or not entry["reason"].strip():
                    raise ValueError(case)
                exceptions[case] = Verdict(entry["behavior"], entry["close"])
        return cls(table["sections"], exceptions)

    def allow(self, case: str, verdict: Verdict) -> bool:
        """Say whether `verdict` is good enough for `case`: OK always is."""
        return verdict == Verdict(_FINE) or verdict == self.exceptions.get(case)


def drive(
    port: int,
    cases: Sequence[str],
    directory: Path,
    *,
    patience: float,
    parallel: int = 2,
) -> dict[str, Verdict]:
    """Run `cases`, which may be globs, against the server on `port`; return their verdicts.

    The suite's report is left in `directory`, with a page for each case. The suite bounds each case
    itself; `patience` is in seconds, and for all of them.
    """
    command = [sys.executable, str(SUITE), "-m", "fuzzingclient"]
    command += ["-p", str(parallel), "-o", str(directory)]
    for case in cases:
        command += ["-i", case]
    done = subprocess.run(
        [*command, f"127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,  # it says 1 for a case that has failed: judging is ours
    )
    index = directory / "index.json"
    assert index.is_file(), f"no report was written:\n{done.stdout}{done.stderr}"
    return read(index)


def read(index: Path) -> dict[str, Verdict]:
    """Return the verdicts in the report whose `index.json` is at `index`, by case.

    The report is ordered by the name of the server as each case saw it; all of them are ours.
    """
    verdicts: dict[str, Verdict] = {}
    for cases in json.loads(index.read_text()).values():
        assert not verdicts.keys() & cases.keys(), "a case is reported twice"
        for case, said in cases.items():
            verdicts[case] = Verdict(said["behavior"], said["behaviorClose"])
    return verdicts


def judge(verdicts: Mapping[str, Verdict], expectations: Expectations) -> list[str]:
    """Return a line for each verdict that is not accepted, in the order of the cases."""
    return [
        f"{case}: {verdicts[case]}"
        for case in sorted(verdicts, key=_place)
        if not expectations.allow(case, verdicts[case])
    ]


def summary(verdicts: Mapping[str, Verdict]) -> str:
    """Return a line for each section: how many cases had which verdicts."""
    counts = Counter((_place(case)[0], str(verdict)) for case, verdict in verdicts.items())
    sections: dict[int, list[str]] = {}
    for (section, verdict), count in sorted(counts.items(), key=_most_first):
        sections.setdefault(section, []).append(f"{count} {verdict}")
    return "\n".join(f"section {number}: {'; '.join(said)}" for number, said in sections.items())


def _most_first(item: tuple[tuple[int, str], int]) -> tuple[int, int, str]:
    """Return what orders the counts of `summary`."""
    (section, verdict), count = item
    return section, -count, verdict


def _place(case: str) -> tuple[int, ...]:
    """Return what orders cases: 1.2.10 comes behind 1.2.9."""
    return tuple(map(int, case.split(".")))
