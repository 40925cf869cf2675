"""`python -m benchmarks`, or `make bench`: measures the servers, prints and keeps the figures."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path

from benchmarks import tables, weights
from benchmarks.processes import choose_cores
from benchmarks.publish import RESULTS, publish
from benchmarks.results import Run, circumstances
from benchmarks.rounds import Pace, measure
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import BASELINE, OURS, SERVERS, Server

MEMORY = "memory"
QUICK = Pace(rounds=2, seconds=0.3)
QUICK_SOCKETS = 500
BUSY = 0.3
"""A load average above which ratios still mean something, and figures do not."""


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure CPU time and requests per second of ASGI servers, side by side.",
        epilog="A full run is published: results.json, tables and plot of the documents.",
    )
    names = ", ".join([*(one.name for one in SCENARIOS), MEMORY])
    parser.add_argument("--only", default="", metavar="A,B", help=f"of {names}")
    parser.add_argument("--servers", default="", metavar="A,B", help=f"of {', '.join(SERVERS)}")
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FOLDER",
        help="another checkout of this project, measured beside the present one",
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that it works; no figures to quote"
    )
    parser.add_argument("--rounds", type=int, help=f"default {Pace.rounds}")
    parser.add_argument("--seconds", type=float, help=f"of a round, default {Pace.seconds}")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--render", action="store_true", help="only write the documents anew")
    asked = parser.parse_args()
    asked.only = chosen(parser, asked.only, [*(one.name for one in SCENARIOS), MEMORY])
    asked.servers = chosen(parser, asked.servers, list(SERVERS))
    return asked


def chosen(parser: argparse.ArgumentParser, asked: str, names: list[str]) -> list[str]:
    """Return the names of a list with commas, all when it is empty; exits if one is unknown."""
    wanted = asked.split(",") if asked else names
    if unknown := set(wanted) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return wanted


def pace_of(asked: argparse.Namespace) -> Pace:
    """Return how long to measure."""
    pace = QUICK if asked.quick else Pace()
    return Pace(rounds=asked.rounds or pace.rounds, seconds=asked.seconds or pace.seconds)


def execute(asked: argparse.Namespace, servers: dict[str, Server]) -> Run:
    """Measure what was asked for, printing each scenario when it is done."""
    cores, pace = choose_cores(), pace_of(asked)
    run = Run(circumstances(servers), pace.rounds, pace.seconds)
    if run.circumstances.load > BUSY:
        print(
            f"The machine is busy (load average {run.circumstances.load}): quote ratios at most.\n"
        )
    if cores.server == cores.load:
        print("There is one core, which the server shares with its load: no figures to quote.\n")
    for scenario in SCENARIOS:
        if scenario.name in asked.only:
            run.scenarios[scenario.name] = measure(scenario, servers, cores, pace)
            print(tables.scenario_text(scenario, run.scenarios[scenario.name]), flush=True)
    if MEMORY in asked.only:
        sockets = QUICK_SOCKETS if asked.quick else weights.SOCKETS
        weights.allow_descriptors(sockets)
        for name, server in servers.items():
            run.memory[name] = weights.weigh(name, server, cores, sockets)
        print(tables.memory_text(run.memory), flush=True)
    return run


def main() -> None:
    """Do what the command line asks for."""
    asked = arguments()
    if asked.render:
        publish()
        return
    if shutil.which("h2load") is None:
        sys.exit("benchmarks: h2load is missing (Debian: apt-get install nghttp2-client)")
    servers = {name: SERVERS[name] for name in asked.servers}
    if asked.baseline:
        checkout = asked.baseline.resolve()
        servers[BASELINE] = dataclasses.replace(SERVERS[OURS], checkout=checkout)
    run = execute(asked, servers)
    if asked.output:
        run.write(asked.output)
    everything = [*(one.name for one in SCENARIOS), MEMORY]
    if asked.only == everything and list(servers) == list(SERVERS) and not asked.quick:
        run.write(RESULTS)
        publish()
        print(
            f"written: {RESULTS.name}, README.md, CHANGELOG.md, docs/benchmarks.md, docs/speed.svg"
        )


if __name__ == "__main__":
    main()
