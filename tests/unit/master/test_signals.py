"""The table of signals and the mailbox."""

from __future__ import annotations

import selectors
import signal

import pytest

from daphne_supervisor.master.model import Command
from daphne_supervisor.master.signals import HANDLED, TABLE, Mailbox, SignalRow, markdown_table


def test_every_command_has_exactly_one_signal() -> None:
    """What an operator can ask for can be asked for, in one way."""
    assert sorted(row.command.name for row in TABLE) == sorted(Command.__members__)
    assert len({row.number for row in TABLE}) == len(TABLE)


def test_the_readme_table_has_a_row_for_each_signal() -> None:
    """The table is Markdown, with the names that people type."""
    lines = markdown_table().splitlines()
    assert lines[0].startswith("| Signal |")
    assert len(lines) == 2 + len(TABLE)
    assert all(row.number.name in line for row, line in zip(TABLE, lines[2:], strict=True))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.number.name)
def test_a_signal_becomes_its_command(row: SignalRow) -> None:
    """Each signal wakes whoever waits for the mailbox, and is read as its command."""
    with Mailbox() as mailbox, selectors.DefaultSelector() as selector:
        selector.register(mailbox, selectors.EVENT_READ)
        signal.raise_signal(row.number)
        assert selector.select(5)
        assert mailbox.read() == [row.command]
        assert mailbox.read() == []
        selector.unregister(mailbox)


def test_commands_arrive_in_order_and_a_death_is_none() -> None:
    """Two signals before one look are two commands; SIGCHLD only wakes."""
    with Mailbox() as mailbox:
        signal.raise_signal(signal.SIGTTIN)
        signal.raise_signal(signal.SIGCHLD)
        signal.raise_signal(signal.SIGHUP)
        assert mailbox.read() == [Command.MORE, Command.RELOAD]


def test_a_flood_of_signals_harms_nobody() -> None:
    """When the mailbox is full, further signals are dropped without a word."""
    with Mailbox() as mailbox:
        for _ in range(3000):
            signal.raise_signal(signal.SIGTTIN)
        assert set(mailbox.read()) == {Command.MORE}


def test_the_handlers_are_given_back() -> None:
    """After the mailbox is closed, signals do what they did before."""
    before = [signal.getsignal(number) for number in HANDLED]
    with Mailbox():
        assert [signal.getsignal(number) for number in HANDLED] != before
    assert [signal.getsignal(number) for number in HANDLED] == before
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    assert fd == -1
