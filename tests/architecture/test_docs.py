"""What the documents say is what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]


def tables() -> ModuleType:
    """Return docs/tables.py as a module."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/frameworks.md"])
def test_tables_are_those_of_the_code(page: str) -> None:
    """`make docs` would change nothing."""
    assert tables().filled(page) == (ROOT / page).read_text()


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in a Markdown file of ours points to a file that exists."""
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")]
    broken = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_the_readme_names_every_file_of_deploy() -> None:
    """deploy/README.md speaks of each file beside it."""
    text = (ROOT / "deploy" / "README.md").read_text()
    names = [path.name for path in (ROOT / "deploy").iterdir() if path.name != "README.md"]
    assert [name for name in names if path_suffix(name) not in text] == []


def path_suffix(name: str) -> str:
    """Return what a table may call the file: its name, or its suffix beside a sibling's name."""
    return "." + name.rpartition(".")[2] if name.endswith((".service", ".socket")) else name
