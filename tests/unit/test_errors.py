"""The mistakes a user can make, and what the process exits with."""

from __future__ import annotations

import pytest

from daphne_supervisor.errors import BootError, ExitCode, SupervisorError, UsageError


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("wrong"), ExitCode.USAGE), (BootError("no"), 3)]
)
def test_each_kind_of_mistake_has_its_exit_code(error: SupervisorError, code: int) -> None:
    """A script can tell a wrong command line from a server that cannot start."""
    assert isinstance(error, SupervisorError)
    assert error.exit_code == code


def test_exit_codes_are_the_documented_numbers() -> None:
    """The numbers are a promise to scripts and service managers."""
    assert {code.name: code.value for code in ExitCode} == {
        "STOPPED": 0,
        "USAGE": 2,
        "BOOT_FAILED": 3,
        "CRASHED": 70,
    }


def test_the_text_of_a_mistake_is_the_line_to_show() -> None:
    """Nothing is added to what the user reads."""
    assert str(UsageError("--port: 'x' is not a port number")) == "--port: 'x' is not a port number"
