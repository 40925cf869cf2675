"""The bar plot: a panel for each kind of work, each with a scale of its own, as one SVG.

It is written by hand, since a few rectangles need no plotting library, and it follows the reader's
light or dark theme by a media query, which browsers honour in an image too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.results import Run

__all__ = ["Panel", "panels", "svg"]

_COLUMNS = 3
_WIDTH, _GAP = 340, 20
_NAMES, _FIGURES = 136, 58
"""Room at the left of the bars for names, and at the right for figures."""
_BAR, _PITCH, _TITLE = 13, 19, 30
_LONGEST = 5.0
"""A bar ends at this many times our own; a longer one is cut there, and has an arrow."""

_STYLE = """
svg { color-scheme: light dark; font: 12px system-ui, sans-serif }
text { fill: #1f2328 } .title { font-weight: 600 } .ours { font-weight: 600 }
rect { fill: #afb8c1 } rect.ours { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } rect { fill: #57606a } rect.ours { fill: #4493f8 }
}
"""


class Panel(NamedTuple):
    """One kind of work: what the bars mean, and how long they are, by server."""

    title: str
    values: Mapping[str, float]


def panels(run: Run) -> list[Panel]:
    """Return the panels of a run: CPU time by scenario, then memory."""
    found = [
        Panel(f"{one.title}, µs", {n: r.cpu for n, r in run.scenarios[one.name].items() if r.valid})
        for one in SCENARIOS
        if one.name in run.scenarios
    ]
    if run.memory:
        idle = {name: one.websocket for name, one in run.memory.items() if not one.failure}
        found.append(Panel("idle WebSocket, KiB", idle))
    return found


def svg(found: Sequence[Panel]) -> str:
    """Return the drawing of these panels."""
    height = _TITLE + _PITCH * max((len(one.values) for one in found), default=0) + _GAP
    rows = -(-len(found) // _COLUMNS)
    drawn = [
        f'<g transform="translate({_GAP + (_WIDTH + _GAP) * (number % _COLUMNS)} '
        f'{_GAP + height * (number // _COLUMNS)})">\n{_panel(one)}\n</g>'
        for number, one in enumerate(found)
    ]
    size = f"{_GAP + (_WIDTH + _GAP) * _COLUMNS} {_GAP + height * rows}"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">',
            "<title>CPU time per request or message, by server; shorter is better</title>",
            f"<style>{_STYLE}</style>",
            *drawn,
            "</svg>\n",
        )
    )


def _panel(panel: Panel) -> str:
    room = _WIDTH - _NAMES - _FIGURES
    end = max(panel.values.values(), default=1.0)
    if OURS in panel.values:
        end = min(end, _LONGEST * panel.values[OURS])
    lines = [f'<text class="title" y="12">{escape(panel.title)}</text>']
    for number, (name, value) in enumerate(panel.values.items()):
        kind = ' class="ours"' if name == OURS else ""
        top = _TITLE - 8 + number * _PITCH
        width = room * min(1.0, value / end) if end else 0.0
        arrow = "→ " if value > end else ""
        figure = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004
        base = top + _BAR - 2
        lines += [
            f'<text{kind} x="0" y="{base}">{escape(name)}</text>',
            f'<rect{kind} x="{_NAMES}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2"/>',
            f'<text{kind} x="{_NAMES + width + 5:.1f}" y="{base}">{arrow}{figure}</text>',
        ]
    return "\n".join(lines)
