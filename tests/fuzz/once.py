"""Play one input, without a fuzzer: `python -m tests.fuzz.once http1 FILE`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.fuzz.choices import split

if __name__ == "__main__":
    target, name = sys.argv[1:]
    data = Path(name).read_bytes()
    wire, choices = split(data)
    print(f"wire: {wire!r}\nchoices: {choices.rest()!r}")
    importlib.import_module(f"tests.fuzz.{target}").check(data)
    print("nothing found")
