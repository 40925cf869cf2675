"""The benchmarks tell the truth: what they count, what they compare, and what they refuse to."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks import checks, plot, publish, tables, weights
from benchmarks.client import frame
from benchmarks.loads import Client, H2load, LoadError
from benchmarks.processes import choose_cores, reserved_port, running
from benchmarks.results import Circumstances, Memory, Result, Round, Run
from benchmarks.rounds import Pace, measure
from benchmarks.scenarios import BEST, SCENARIOS, Bound
from benchmarks.servers import OURS, SERVERS

if TYPE_CHECKING:
    from pathlib import Path

BY_NAME = {one.name: one for one in SCENARIOS}
SHORT = Pace(rounds=1, seconds=0.1)
H2LOAD = """
finished in {seconds}, 19600.12 req/s, 2.60MB/s
requests: 400 total, 400 started, {done} done, 400 succeeded, 0 failed, {errors} errored, 0 timeout
status codes: 400 2xx, 0 3xx, 0 4xx, {broken} 5xx
"""


def result(*spent: float) -> Result:
    """Return the result of a server that spent so many microseconds in each round."""
    return Result([Round(cpu, 1e6 / cpu) for cpu in spent])


def run_of(**spent: float) -> Run:
    """Return a run in which hello took so many microseconds, by server."""
    names = {name.replace("_", "-"): cpu for name, cpu in spent.items()}
    where = Circumstances(
        date="2026-01-31",
        python="3.13.0",
        cpu="A Processor",
        cores=2,
        kernel="6.1",
        h2load="h2load nghttp2/1.52.0",
        load=0.05,
        versions={name: {name: "1.0"} for name in names},
    )
    memory = {name: Memory(11.0, 10e6, 20e6) for name in names}
    hello = {name: result(cpu, cpu) for name, cpu in names.items()}
    return Run(where, 2, 1.5, {"hello": hello}, memory)


@pytest.mark.parametrize("name", ["connect", "ws32"])
def test_our_own_client_measures_our_own_server(name: str) -> None:
    """A round ends with every answer there, with CPU time spent, and without a remark."""
    results = measure(BY_NAME[name], {OURS: SERVERS[OURS]}, choose_cores(), SHORT)
    one = results[OURS]
    assert one.failure == ""
    assert one.remarks == []
    assert one.valid
    assert 0 < one.rate < 1e6


def test_cpu_time_is_that_of_children_that_are_gone_too(tmp_path: Path) -> None:
    """What a child has spent is still counted after its parent has waited for it."""
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    parent = (
        "import subprocess, sys, signal\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        "print('done', flush=True)\n"
        "signal.pause()\n"
    )
    core = choose_cores().server
    command = [sys.executable, "-c", parent]
    with running("x", command, port=0, core=core, folder=tmp_path, environment={}) as one:
        while "done" not in one.last_words():
            one.settled_cpu()
        assert len(one.pids()) == 1
        assert one.cpu() > 0.25


def test_nothing_of_a_server_is_left_behind(tmp_path: Path) -> None:
    """A process that ignores SIGTERM, and its child, are gone when the measuring is over."""
    stubborn = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n"
        "if os.fork() == 0: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('done', flush=True)\n"
        "while True: signal.pause()\n"
    )
    command = [sys.executable, "-c", stubborn]
    core = choose_cores().server
    with running("x", command, port=0, core=core, folder=tmp_path, environment={}) as one:
        while one.last_words().count("done") < 2:
            one.settled_cpu()
        assert len(one.pids()) == 2
    assert one.pids() == []


def test_a_server_that_does_not_start_is_no_reason_to_stop() -> None:
    """Its failure is kept, with what it said; the others are measured."""
    broken = dataclasses.replace(SERVERS[OURS], words="--no-such-option")
    servers = {OURS: SERVERS[OURS], "broken": broken}
    results = measure(BY_NAME["ws32"], servers, choose_cores(), SHORT)
    assert results[OURS].valid
    assert "--no-such-option" in results["broken"].failure
    assert not results["broken"].valid


def test_a_wrong_answer_disqualifies() -> None:
    """A server that answers with something else is not measured."""

    def check(_: int) -> list[str]:
        message = "another body"
        raise checks.WrongAnswer(message)

    scenario = dataclasses.replace(BY_NAME["ws32"], check=check)
    found = measure(scenario, {OURS: SERVERS[OURS]}, choose_cores(), SHORT)[OURS]
    assert found.rounds == []
    assert "another body" in found.failure


def test_an_access_log_that_lacks_lines_disqualifies() -> None:
    """Who is measured with an access log has written one."""
    mode = BY_NAME["log"].mode
    silent = dataclasses.replace(SERVERS[OURS], additions={mode: "--port {port}"})
    scenario = dataclasses.replace(BY_NAME["connect"], mode=mode)
    servers = {OURS: SERVERS[OURS], "silent": silent}
    found = measure(scenario, servers, choose_cores(), SHORT)
    assert found[OURS].failure == ""
    assert "access log" in found["silent"].failure


def test_who_does_not_take_part_has_a_reason() -> None:
    """A scenario may leave a server out, and its result says why."""
    scenario = dataclasses.replace(BY_NAME["ws32"], without={"uvicorn": "it cannot"})
    servers = {"uvicorn": SERVERS["uvicorn"]}
    assert measure(scenario, servers, choose_cores(), SHORT)["uvicorn"].failure == "it cannot"


def test_a_reserved_port_is_given_once() -> None:
    """Two servers that start at the same time never get the same port."""
    with reserved_port() as one, reserved_port() as other:
        assert one != other


@pytest.mark.parametrize(
    ("seconds", "expected"), [("1.50s", 1.5), ("250.00ms", 0.25), ("800us", 0.0008), ("2m", 120.0)]
)
def test_h2load_s_time_is_read_in_every_unit(seconds: str, expected: float) -> None:
    """The rate is right whichever unit h2load has chosen."""
    said = H2LOAD.format(seconds=seconds, done=400, errors=0, broken=0)
    outcome = H2load().outcome(said)
    assert outcome.done == 400
    assert outcome.seconds == pytest.approx(expected)


@pytest.mark.parametrize(("errors", "broken"), [(1, 0), (0, 1)])
def test_h2load_s_failures_are_failures(errors: int, broken: int) -> None:
    """A run with an error or a status that is not 2xx has no figure."""
    with pytest.raises(LoadError):
        H2load().outcome(H2LOAD.format(seconds="1s", done=400, errors=errors, broken=broken))


def test_a_client_that_says_less_than_it_was_asked_for_is_heard() -> None:
    """The client's own count is what is compared with the one asked for."""
    assert Client("text").outcome('{"done": 3, "seconds": 0.5}').done == 3


@pytest.mark.parametrize("size", [0, 5, 125, 126, 16384])
def test_frames_are_masked_and_whole(size: int) -> None:
    """The client's frame unmasks to its payload (RFC 6455, 5.3), for both forms of the length."""
    payload = bytes(index % 251 for index in range(size))
    made = frame(payload, text=False)
    masked = made[len(made) - size :]
    key = made[len(made) - size - 4 : len(made) - size]
    assert bytes(byte ^ key[index % 4] for index, byte in enumerate(masked)) == payload


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was slow for both leaves the ratio alone."""
    assert result(10, 40, 11).ratio(result(20, 80, 20)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ours", "expected"), [(6.0, "(reach ≤ 0.60): met"), (6.1, "(reach ≤ 0.60): not met")]
)
def test_a_verdict_compares_with_what_is_to_be_reached(ours: float, expected: str) -> None:
    """Met at the bound, not met above it."""
    results = {OURS: result(ours), "uvicorn": result(10)}
    assert tables.verdict(Bound(0.60, "uvicorn"), results).endswith(expected)


def test_a_verdict_on_who_was_not_measured_is_none() -> None:
    """Nothing is said to be met that was not seen."""
    results = {OURS: result(1.0), "uvicorn": Result(failure="it fell over")}
    assert tables.verdict(Bound(0.60, "uvicorn"), results) == "uvicorn: not measured"
    assert tables.verdict(Bound(0.60, BEST), results) == f"{BEST}: not measured"


def test_the_best_peer_is_never_ourselves() -> None:
    """Neither this project nor a baseline of it counts as a peer."""
    results = {OURS: result(1), "baseline": result(2), "granian": result(4), "daphne": result(9)}
    assert tables.best(results) == "granian"


def test_a_run_is_kept_whole(tmp_path: Path) -> None:
    """What is written is what is read."""
    run = run_of(daphne_supervisor=20.0, uvicorn=40.0)
    run.write(tmp_path / "run.json")
    assert Run.read(tmp_path / "run.json") == run


def test_the_table_says_who_when_and_whether_it_is_reached() -> None:
    """Figures, ratios, verdicts, the date and the machine are in the published table."""
    text = tables.speed_table(run_of(daphne_supervisor=20.0, uvicorn=40.0, granian=21.0))
    (row,) = [line for line in text.splitlines() if line.startswith("| hello,")]
    assert row.split(" | ")[1:-1] == ["20.0", "40.0", "21.0", "0.50", "0.95", "0.95"]
    assert row.count(": met") == row.count(": not met") == 1
    assert "2026-01-31" in text
    assert f"≤ {weights.IDLE_REACH:g} KiB: met" in text


def test_the_plot_is_a_drawing_with_a_bar_for_each_server() -> None:
    """It is well-formed and true to scale; a bar far longer than ours is cut and says so."""
    run = run_of(daphne_supervisor=20.0, uvicorn=40.0, gunicorn=2000.0)
    drawn = plot.svg(plot.panels(run))
    root = ET.fromstring(drawn)  # noqa: S314 - we have just made it
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 6
    assert "→ 2,000" in drawn
    ours, uvicorn, gunicorn = (float(bar.attrib["width"]) for bar in bars[:3])
    assert (uvicorn, gunicorn) == (
        pytest.approx(2 * ours, abs=0.2),
        pytest.approx(5 * ours, abs=0.3),
    )


def test_the_documents_show_the_figures_that_are_kept() -> None:
    """README, CHANGELOG, docs/benchmarks.md and the plot are those of results.json."""
    run = Run.read(publish.RESULTS) if publish.RESULTS.exists() else None
    for path, content in publish.documents(run).items():
        assert path.read_text() == content, f"{path.name}: python -m benchmarks --render"
