"""Fuzz the codecs with atheris: every target in a process of its own, all at the same time.

A target that fails has stopped at its finding, which is named here and kept below `.fuzz/`; the
inputs that reach new code are kept there too, and the next run begins with them.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.fuzz.targets import ROOT, TARGETS, cases, seeds

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["main"]

SCRATCH = ROOT / ".fuzz"
#: Seconds for one input, which has to take milliseconds: beyond them it hangs.
PATIENCE = 10
#: Bytes of an input: room for a few requests or messages, and their choices.
LONGEST = 4096
#: MiB, of which atheris itself takes the most.
MEMORY = 1024
#: Seconds that a process may take on top of those it was told: to start, and to read its inputs.
GRACE = 120


def main() -> int:
    """Fuzz for the seconds that the command line says; return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--one", choices=TARGETS, help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}")
    options = parser.parse_args()
    if options.one:
        fuzz(options.one, options.seconds)
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return run(targets, options.seconds)


# -- all of them --


def run(targets: list[str], seconds: int) -> int:
    """Fuzz `targets`, print what came of each, return 1 if anything was found."""
    processes = {target: start(target, seconds) for target in targets}
    results = []
    for target, process in processes.items():
        try:
            process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        results.append(report(target, process.returncode))
    return int(not all(results))


def start(target: str, seconds: int) -> subprocess.Popen[bytes]:
    """Start to fuzz `target`."""
    (SCRATCH / target / "found").mkdir(parents=True, exist_ok=True)
    (SCRATCH / target / "corpus").mkdir(exist_ok=True)
    for path in seeds(target):
        shutil.copy(path, SCRATCH / target / "corpus" / f"{path.parent.name}-{path.name}")
    if target == "http2":
        for name, data in cases().items():
            if len(data) <= LONGEST:
                (SCRATCH / target / "corpus" / name).write_bytes(data)
    with log_of(target).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.run", f"--seconds={seconds}", f"--one={target}"],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def log_of(target: str) -> Path:
    """Return where the output of a target goes."""
    return SCRATCH / target / "log"


def report(target: str, status: int) -> bool:
    """Print what came of `target`; return whether it ended well."""
    log = log_of(target).read_text(errors="replace")
    runs = re.findall(r"stat::number_of_executed_units: +(\d+)|^#(\d+)\t", log, re.MULTILINE)
    coverage = re.findall(r" cov: (\d+)", log)
    count = max((int(a or b) for a, b in runs), default=0)
    print(f"{target:10} {count:9} inputs, {(coverage or ['no'])[-1]} edges of code", end="")
    print(", nothing found" if not status else f", ended with {status}: {log_of(target)}")
    if status:
        print(re.sub(r"(?m)^(#\d+|INFO:|NEW_FUNC|==\d+==).*\n", "", log)[-3000:])
        for name in re.findall(r"Test unit written to (\S+)", log):
            print(f"  the input: {name}")
            print(f"  once more: python -m tests.fuzz.once {target} {name}")
    return not status


# -- one of them --


def fuzz(target: str, seconds: int) -> None:
    """Fuzz `target` in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - an environment of its own has it; the parent needs it not

    with atheris.instrument_imports(include=["daphne_supervisor.worker", "autobahn.websocket"]):
        module = importlib.import_module(f"tests.fuzz.{target}")
    here = SCRATCH / target
    words = here / "dictionary"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in module.DICTIONARY))
    arguments = [
        target,
        f"-max_total_time={seconds}",
        f"-timeout={PATIENCE}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-dict={words}",
        f"-artifact_prefix={here / 'found'}/",
        "-print_final_stats=1",
        "-detect_leaks=0",
        str(here / "corpus"),
    ]
    atheris.Setup(arguments, module.check)
    atheris.Fuzz()


def escaped(word: bytes) -> str:
    """Return `word` as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{byte:02X}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
