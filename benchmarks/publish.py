"""Puts the figures of `results.json` where they are read: into the documents, and into the plot."""

from __future__ import annotations

from pathlib import Path

from benchmarks import plot, tables
from benchmarks.results import Run

__all__ = ["RESULTS", "documents", "publish"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
_PLOT = "docs/speed.svg"
_ALT = "CPU time per request or message, by server; the table below has the figures"


def documents(run: Run | None) -> dict[Path, str]:
    """Return what each document should hold; without a run, that there is none yet."""
    speed = rates = tables.NOT_YET
    found: dict[Path, str] = {}
    if run is not None:
        speed, rates = tables.speed_table(run), tables.rate_table(run)
        found[ROOT / _PLOT] = plot.svg(plot.panels(run))
    shown = speed if run is None else f"![{_ALT}]({_PLOT})\n\n{speed}"
    for path, mark, content in (
        (ROOT / "README.md", "speed", shown),
        (ROOT / "CHANGELOG.md", "speed", speed),
        (ROOT / "docs" / "benchmarks.md", "rates", rates),
    ):
        found[path] = tables.filled(path.read_text(), mark, content)
    return found


def publish() -> None:
    """Write the documents anew from `results.json`, if there is one."""
    run = Run.read(RESULTS) if RESULTS.exists() else None
    for path, content in documents(run).items():
        path.write_text(content)
