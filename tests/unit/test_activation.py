"""Socket activation: what a service manager hands over."""

from __future__ import annotations

import pytest

from daphne_supervisor import activation


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, ()),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "42", "LISTEN_FDNAMES": "web:admin"}, ("web", "admin")),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "42"}, ("", "")),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "42", "LISTEN_FDNAMES": "web:admin"}, ("web",)),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "41"}, ()),
        ({"LISTEN_FDS": "two", "LISTEN_PID": "42"}, ()),
    ],
)
def test_what_is_handed_over_is_ours_only_by_its_process_id(
    environ: dict[str, str], names: tuple[str, ...]
) -> None:
    """Variables meant for another process are not taken for our own; names may be missing."""
    assert activation.names(environ, 42) == names
