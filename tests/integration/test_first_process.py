"""The master as process 1, as in a container: a real process-id namespace."""

from __future__ import annotations

import re
import signal
import sys

import psutil

from tests.support.client import get
from tests.support.daphne import environment
from tests.support.programs import Program
from tests.support.tools import tool, unavailable


def test_process_1_reaps_strangers_and_is_not_upgraded() -> None:
    """An orphan's exit code means nothing, USR2 is refused, and TERM ends all with code 0."""
    master = [sys.executable, "-m", "daphne_supervisor", "-v", "2", "-p", "0", "-w", "2"]
    application = "tests.integration.worker_app:orphan"
    namespace = [tool("unshare", "util-linux"), "--pid", "--fork", "--mount-proc"]
    command = [*namespace, "--kill-child=SIGKILL", *master, application]
    with Program(command, environment=environment()) as program:
        line = program.line("")
        if line.startswith("unshare:"):
            unavailable(f"a namespace of process ids is not allowed here: {line}")
        found = re.search(r"Listening on TCP address \S+:(\d+)", program.line("Listening on"))
        assert found is not None
        program.line("generation 1 is complete")
        (first,) = psutil.Process(program.pid).children()
        assert get(int(found[1]), "/").text == "1"  # whose child the worker is, in its own words
        program.line("no worker: exit code 3")
        first.send_signal(signal.SIGUSR2)
        program.line("upgrade failed: this master is process 1")
        assert get(int(found[1]), "/").text == "1"
        first.send_signal(signal.SIGTERM)
        program.line("stopped: the master was asked to stop")
    assert "crashed" not in program.log()
