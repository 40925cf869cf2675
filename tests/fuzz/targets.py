"""What is fuzzed, and where its first inputs come from."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT", "TARGETS", "seeds"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Each is a module here with a `DICTIONARY` of morsels and `check(data)`, which fails by raising.
TARGETS = ("http1", "response", "websocket")


def seeds(target: str) -> list[Path]:
    """Return the kept inputs of `target`, each named by what it shows, in a fixed order.

    Those of HTTP/1.1 have the cases of the conformance tests for company.
    """
    found = sorted((HERE / "corpus" / target).iterdir())
    if target == "http1":
        found += sorted((ROOT / "tests" / "conformance" / "corpus").glob("*/*.http"))
    return found
