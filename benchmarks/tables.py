"""The figures as people read them: on the terminal, and as the tables of the documents."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.scenarios import BEST, SCENARIOS
from benchmarks.servers import BASELINE, OURS
from benchmarks.weights import IDLE_REACH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.results import Circumstances, Memory, Result, Run
    from benchmarks.scenarios import Bound, Scenario

__all__ = ["NOT_YET", "filled", "memory_text", "rate_table", "scenario_text", "speed_table"]

NOT_YET = "Not measured yet: `make bench` writes this table."


def scenario_text(scenario: Scenario, results: Mapping[str, Result]) -> str:
    """Return a scenario's figures for the terminal: medians, smallest to largest, the verdicts."""
    head = f"  {'':20}{'CPU µs':>9}{'min–max':>17}{'per s':>10}  CPU ÷ ours"
    lines = [f"{scenario.name}: {scenario.title}", head]
    ours = results.get(OURS)
    for name, one in results.items():
        if not one.valid:
            lines.append(f"  {name:20}  {_first_line(one.failure)}")
            continue
        spent = [entry.cpu for entry in one.rounds]
        spread = f"{min(spent):.1f}–{max(spent):.1f}"
        ratio = f"{one.ratio(ours):.2f}" if ours is not None and ours.valid else ""
        remarks = ", ".join(one.remarks)
        lines.append(f"  {name:20}{one.cpu:9.1f}{spread:>17}{one.rate:10,.0f}  {ratio:6} {remarks}")
    lines += [f"  ours: {verdict(bound, results)}" for bound in scenario.reach]
    failures = [one.failure for one in results.values() if "\n" in one.failure]
    return "\n".join([*lines, *failures, ""])


def memory_text(memory: Mapping[str, Memory]) -> str:
    """Return the figures of memory for the terminal."""
    lines = [
        "memory",
        f"  {'':20}{'idle WebSocket KiB':>20}{'worker USS MB':>15}{'all PSS MB':>12}",
    ]
    for name, one in memory.items():
        if one.failure:
            lines.append(f"  {name:20}  {one.failure}")
            continue
        lines.append(f"  {name:20}{one.websocket:20.1f}{one.worker:15.1f}{one.total:12.1f}")
    if OURS in memory and not memory[OURS].failure:
        lines.append(f"  ours: {_idle_verdict(memory[OURS])}")
    return "\n".join([*lines, ""])


def verdict(bound: Bound, results: Mapping[str, Result]) -> str:
    """Return what our ratio to a peer is, what it should be, and whether it is."""
    ours = results.get(OURS)
    peer = best(results) if bound.peer == BEST else bound.peer
    theirs = results.get(peer)
    if ours is None or theirs is None or not ours.valid or not theirs.valid:
        return f"{bound.peer}: not measured"
    ratio = ours.ratio(theirs)
    word = "met" if ratio <= bound.factor else "not met"
    return f"{ratio:.2f} × {peer} (reach ≤ {bound.factor:.2f}): {word}"


def best(results: Mapping[str, Result]) -> str:
    """Return the name of the peer that spends least, or nothing when none was measured."""
    peers = {n: one.cpu for n, one in results.items() if one.valid and n not in {OURS, BASELINE}}
    return min(peers, key=peers.__getitem__, default="")


def speed_table(run: Run) -> str:
    """Return the table of CPU time and memory, with ratios and what is to be reached."""
    names = list(run.circumstances.versions)
    head = ["work", *names, "ours ÷ uvicorn", "÷ granian", "÷ best peer", "reach"]
    rows = [
        _row(scenario, run.scenarios[scenario.name], names)
        for scenario in SCENARIOS
        if scenario.name in run.scenarios
    ]
    rows += _memory_rows(run.memory, names) if run.memory else []
    return f"{_caption(run)}\n\n{_markdown(head, rows)}"


def rate_table(run: Run) -> str:
    """Return the table of requests or messages per second, as Markdown."""
    names = list(run.circumstances.versions)
    rows = []
    for scenario in SCENARIOS:
        if scenario.name not in run.scenarios:
            continue
        results = run.scenarios[scenario.name]
        figures = [f"{results[n].rate:,.0f}" if _valid(results, n) else "–" for n in names]
        rows.append([scenario.title, *figures])
    return f"{_markdown(['work, per second', *names], rows)}\n\n{_made_with(run.circumstances)}"


def filled(text: str, mark: str, content: str) -> str:
    """Return `text` with what stands between the two comments of `mark` replaced.

    Raises `ValueError` unless the place is there exactly once.
    """
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    text, count = pattern.subn(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)
    if count != 1:
        message = f"there are {count} places for {mark!r}, not one"
        raise ValueError(message)
    return text


def _row(scenario: Scenario, results: Mapping[str, Result], names: Sequence[str]) -> list[str]:
    figures = [f"{results[name].cpu:.1f}" if _valid(results, name) else "–" for name in names]
    ratios = [_ratio(results, peer) for peer in ("uvicorn", "granian", best(results))]
    reach = "; ".join(_reach(bound, results) for bound in scenario.reach)
    return [f"{scenario.title}", *figures, *ratios, reach]


def _reach(bound: Bound, results: Mapping[str, Result]) -> str:
    said = verdict(bound, results).rpartition(": ")[2]
    return f"≤ {bound.factor:.2f} × {bound.peer}: {said}"


def _ratio(results: Mapping[str, Result], peer: str) -> str:
    if not _valid(results, peer) or not _valid(results, OURS):
        return "–"
    return f"{results[OURS].ratio(results[peer]):.2f}"


def _memory_rows(memory: Mapping[str, Memory], names: Sequence[str]) -> list[list[str]]:
    kinds = (
        ("idle WebSocket, KiB", "websocket", _idle_verdict(memory[OURS])),
        ("worker's own memory after hello, MB (USS)", "worker", ""),
        ("all processes, MB (PSS)", "total", ""),
    )
    rows = []
    for title, attribute, reach in kinds:
        found = {n: getattr(memory[n], attribute) for n in names if not memory[n].failure}
        figures = [f"{found[name]:.1f}" if name in found else "–" for name in names]
        peers = {name: one for name, one in found.items() if name != OURS}
        against = [peers.get("uvicorn"), peers.get("granian"), min(peers.values(), default=None)]
        ratios = [f"{found[OURS] / one:.2f}" if one and OURS in found else "–" for one in against]
        rows.append([title, *figures, *ratios, reach])
    return rows


def _idle_verdict(ours: Memory) -> str:
    word = "met" if ours.websocket <= IDLE_REACH and not ours.failure else "not met"
    return f"≤ {IDLE_REACH:g} KiB: {word}"


def _valid(results: Mapping[str, Result], name: str) -> bool:
    return name in results and results[name].valid


def _caption(run: Run) -> str:
    where = run.circumstances
    return (
        "CPU microseconds per request or message (user and system, all processes of the server), "
        f"medians of {run.rounds} interleaved rounds of about {run.seconds:g} s, "
        f"one worker on one core; {where.date}, Python {where.python}, {where.cpu}. Less is better."
    )


def _made_with(where: Circumstances) -> str:
    releases = "; ".join(
        f"{name} ({', '.join(f'{part} {version}' for part, version in parts.items())})"
        for name, parts in where.versions.items()
    )
    return (
        f"Measured on {where.date}: Python {where.python}, {where.cpu}, {where.cores} cores, "
        f"Linux {where.kernel}, {where.h2load}, load average before "
        f"{where.load:.2f}. Releases: {releases}."
    )


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---", *("---:" for _ in lines[0][1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _first_line(failure: str) -> str:
    return failure.partition("\n")[0]
