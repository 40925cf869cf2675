"""Workers share the memory that they are born with, measured beside other servers.

The figures that are compared come from one run on one machine; see `benchmarks/memory.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.memory import measure, subjects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.memory import Subject

pytestmark = pytest.mark.timeout(240)  # two servers with four workers each, one after the other


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Subject, Subject]]:
    """Return the smallest application, and the example project."""
    with subjects() as found:
        yield found


def _ratio(ours: str, theirs: str, subject: Subject) -> float:
    """Return the PSS of one of our workers over that of one of theirs."""
    mine, other = measure(ours, subject).worker, measure(theirs, subject).worker
    print(f"{subject.name}: {ours} {mine / 1e6:.1f} MB, {theirs} {other / 1e6:.1f} MB")  # noqa: T201
    return mine / other


def test_a_worker_takes_four_fifths_of_one_of_uvicorns(served: tuple[Subject, Subject]) -> None:
    """At the most, with the smallest application, and without --preload."""
    hello, _ = served
    assert _ratio("daphne-supervisor", "uvicorn", hello) <= 0.8


def test_preloading_saves_more_than_a_fifth_beside_gunicorn(
    served: tuple[Subject, Subject],
) -> None:
    """With the example project, whose workers gunicorn loads one by one.

    It is 0.72. What remains is what each worker writes: the reference counts of all the code that
    it runs, which Python keeps beside the code.
    """
    _, live = served
    assert _ratio("daphne-supervisor --preload", "gunicorn", live) <= 0.78
