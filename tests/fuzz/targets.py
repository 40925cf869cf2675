"""What is fuzzed, and where its first inputs come from."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.choices import join

__all__ = ["ROOT", "TARGETS", "cases", "seeds"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: Each is a module here with a `DICTIONARY` of morsels and `check(data)`, which fails by raising.
TARGETS = ("http1", "http2", "proxy", "response", "websocket")


def seeds(target: str) -> list[Path]:
    """Return the kept inputs of `target`, each named by what it shows, in a fixed order.

    Those of HTTP/1.1 have the cases of the conformance tests for company.
    """
    found = sorted((HERE / "corpus" / target).iterdir())
    if target == "http1":
        found += sorted((ROOT / "tests" / "conformance" / "corpus").glob("*/*.http"))
    return found


def cases() -> dict[str, bytes]:
    """Return the cases of the conformance tests for HTTP/2 as inputs, by name.

    Those that begin with an upgrade are left out: they begin as HTTP/1.1.
    """
    # The fuzzer has to see what this imports when it is imported first.
    from tests.fuzz.http2 import IN_WIRE  # noqa: PLC0415
    from tests.support.http2_corpus import load  # noqa: PLC0415

    found = {}
    for path in sorted((ROOT / "tests" / "conformance" / "http2").glob("*/*.toml")):
        for case in load(path):
            if not case.table.get("upgrade"):
                found[case.name] = join(b"".join(case.parts), bytes([IN_WIRE]))
    return found
