"""The page on which every worker writes how many connections it has."""

from __future__ import annotations

import os

import pytest

from daphne_supervisor.scoreboard import CAPACITY, IDLE, Scoreboard, mean


def test_nobody_accepts_at_first() -> None:
    """No slot was ever used."""
    board = Scoreboard()
    assert board.counts() == ()
    assert mean(board.counts()) == 0.0


def test_what_is_posted_is_seen() -> None:
    """The slots are in order; one that nobody has used is idle."""
    board = Scoreboard()
    board.post(1, 5)
    assert board.counts() == (5,)
    board.post(4, 0)
    board.post(2, 7)
    board.post(2, 6)
    assert board.counts() == (5, 6, IDLE, 0)


def test_who_has_left_counts_no_more() -> None:
    """It may come back."""
    board = Scoreboard()
    board.post(1, 5)
    board.post(2, 7)
    board.leave(1)
    assert board.counts() == (IDLE, 7)
    assert mean(board.counts()) == 7.0
    board.post(1, 1)
    assert mean(board.counts()) == 4.0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((), 0.0), ((IDLE,), 0.0), ((0,), 0.0), ((3, IDLE, 0, 6, IDLE), 3.0), ((1, 2), 1.5)],
)
def test_the_mean_is_of_those_who_accept(counts: tuple[int, ...], expected: float) -> None:
    """Who is idle neither raises nor lowers it."""
    assert mean(counts) == expected


def test_the_last_slot_is_a_slot() -> None:
    """And a higher one has no place: what is said of it goes nowhere."""
    board = Scoreboard()
    board.post(CAPACITY, 2)
    board.post(CAPACITY + 1, 9)
    board.leave(CAPACITY + 1)
    counts = board.counts()
    assert len(counts) == CAPACITY
    assert mean(counts) == 2.0


def test_every_process_sees_the_same_page() -> None:
    """What a forked child posts, its parent and the children after it read."""
    board = Scoreboard()
    for slot, connections in ((2, 40), (3, 20)):
        pid = os.fork()
        if pid == 0:
            board.post(slot, connections)
            os._exit(0 if mean(board.counts()) in {40.0, 30.0} else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert board.counts() == (IDLE, 40, 20)


def test_the_last_call_is_heard_by_all() -> None:
    """The master says it once, and it is no worker's number."""
    board = Scoreboard()
    board.post(CAPACITY, 2)
    assert not board.closed
    child = os.fork()
    if child == 0:
        board.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert board.closed
    assert board.counts()[-1] == 2
