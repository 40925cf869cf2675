"""Runs `kosoku` with one defect of its 0.1 mended: `python autobahn_suite.py ARGUMENTS`.

Where permessage-deflate has been agreed on, either side may still send a message uncompressed (RFC
7692 section 6), and so does ours when compressing would make it larger. The cases of sections 12
and 13 hash what they receive, but are handed an uncompressed message as a string, and fail on it
with an error of their own. They are handed bytes here. Verdicts are left as they are.
"""

from __future__ import annotations

from typing import Any

from kosoku._cli import main
from kosoku.cases import CASES


def mend(case: type[Any]) -> None:
    """Hand `case` the bytes of every message; the driver keeps binary ones as Latin-1."""
    hear = case.onMessage

    def on_message(self: Any, message: str | bytes, binary: bool) -> None:  # noqa: FBT001 - theirs
        if isinstance(message, str):
            message = message.encode("latin-1" if binary else "utf-8")
        hear(self, message, binary)

    case.onMessage = on_message


if __name__ == "__main__":
    for number, case in CASES.items():
        if number.startswith(("12.", "13.")):
            mend(case)
    main()
