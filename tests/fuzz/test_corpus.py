"""Every input that a fuzzer has found something with, and the seeds it began with, once more."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.choices import MARK, join
from tests.fuzz.targets import TARGETS, seeds

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = [(target, path) for target in TARGETS for path in seeds(target)]


@pytest.mark.parametrize(
    ("target", "path"),
    INPUTS,
    ids=[f"{target}-{path.parent.name}-{path.stem}" for target, path in INPUTS],
)
def test_what_was_found_once_stays_mended(target: str, path: Path) -> None:
    """An input of the corpus breaks no promise of its target; plain bytes come one by one."""
    check = importlib.import_module(f"tests.fuzz.{target}").check
    data = path.read_bytes()
    check(data if MARK in data else join(data, b"\0\0"))
