"""Who of several workers takes a connection."""

from __future__ import annotations

from itertools import pairwise

import pytest

from daphne_supervisor.scoreboard import CAPACITY, IDLE, Scoreboard, mean
from daphne_supervisor.worker.fairness import LONGEST_STEP_BACK, STEP_BACK, Share, Turns


class Pool:
    """The first of several workers, and what the test says of the others."""

    def __init__(self, ours: int, *others: int, most: int = 0) -> None:
        """Have so many connections each."""
        self.board = Scoreboard()
        self.share = Share(self.board, 1, most)
        self.share.join()
        for _ in range(ours):
            self.share.enter()
        for slot, connections in enumerate(others, start=2):
            self.board.post(slot, connections)
        self.turns = Turns(self.share)

    def takes(self) -> int:
        """Return how many connections are taken before we step back."""
        taken = 0
        while self.turns.ours():
            self.share.enter()
            taken += 1
        return taken

    def insists(self) -> bool:
        """Look again, and see that a connection still waits."""
        return self.turns.ours(again=True)


# -- the share --


def test_what_is_counted_is_posted() -> None:
    """For the siblings to see."""
    pool = Pool(2)
    assert pool.board.counts() == (2,)
    pool.share.exit()
    assert (pool.share.connections, pool.board.counts()) == (1, (1,))


def test_who_does_not_accept_is_not_counted() -> None:
    """Before it begins, and when it has stopped; its connections are its own affair."""
    board = Scoreboard()
    share = Share(board, 1, 0)
    share.enter()
    assert board.counts() == ()
    share.join()
    assert board.counts() == (1,)
    share.leave()
    share.enter()
    share.exit()
    assert (share.connections, board.counts()) == (1, (IDLE,))


def test_who_is_full_is_not_counted() -> None:
    """It cannot take what is left to it, so the others measure themselves without it."""
    pool = Pool(1, 0, most=2)
    seen = [(pool.share.full, pool.board.counts())]
    for change in (pool.share.enter, pool.share.exit):
        change()
        seen.append((pool.share.full, pool.board.counts()))
    assert seen == [(False, (1, 0)), (True, (IDLE, 0)), (False, (1, 0))]


def test_without_a_limit_nobody_is_full() -> None:
    """0 is no limit."""
    assert not Pool(5000).share.full


@pytest.mark.parametrize(
    ("others", "alone"),
    [((), True), ((IDLE,), True), ((IDLE, IDLE), True), ((0,), False), ((IDLE, 7), False)],
)
def test_who_has_nobody_beside_it_is_alone(others: tuple[int, ...], *, alone: bool) -> None:
    """Siblings that do not accept, for whatever reason, do not count."""
    assert Pool(3, *others).share.alone is alone


def test_who_cannot_be_seen_is_not_alone() -> None:
    """Beyond the board's slots nobody knows who else there is; nor is who does not accept."""
    board = Scoreboard()
    beyond = Share(board, CAPACITY + 1, 0)
    beyond.join()
    assert not beyond.alone
    board.post(1, 0)
    assert not beyond.alone
    assert not Share(Scoreboard(), 1, 0).alone


def test_who_waits_for_room_is_told_once() -> None:
    """Of the next connection that ends; whoever needs more asks again."""
    share = Pool(3).share
    told: list[int] = []
    share.when_there_is_room(lambda: told.append(1))
    share.when_there_is_room(lambda: told.append(2))
    share.enter()
    assert told == []
    share.exit()
    share.exit()
    assert told == [1, 2]


# -- the turns --


@pytest.mark.parametrize("others", [(0, 0, 0), (9, 9, 9), (IDLE, IDLE)])
@pytest.mark.parametrize("ours", [0, 1])
def test_who_has_next_to_nothing_takes_what_comes(ours: int, others: tuple[int, ...]) -> None:
    """The first connections of an idle pool are not kept waiting by anybody."""
    assert Pool(ours, *others).turns.ours()


@pytest.mark.parametrize(
    ("ours", "others", "expected"),
    [
        (2, (0, 0, 0), False),
        (2, (1, 1, 1), True),
        (3, (1, 1, 1), False),
        (10, (0, 0, IDLE), False),
        (10, (10, 8, 10), True),
        (10, (IDLE, IDLE), True),
        (9, (10, 11, 12), True),
    ],
)
def test_who_has_more_than_the_mean_and_one_steps_back(
    ours: int, others: tuple[int, ...], *, expected: bool
) -> None:
    """Those who do not accept are not asked."""
    assert Pool(ours, *others).turns.ours() is expected


def test_while_the_others_take_what_we_leave_we_go_on_leaving_it() -> None:
    """A long queue, and slow siblings: they show that they live, and nobody gets ahead."""
    pool = Pool(100, 0, 0, 0)
    assert pool.takes() == 0
    for connections in range(1, 90):
        pool.board.post(2 + connections % 3, connections)
        assert not pool.insists()
    assert pool.takes() == 0


def test_a_sibling_that_moves_down_lives_as_well() -> None:
    """A connection of its that ends is a sign of life: it will come for what waits."""
    pool = Pool(20, 4, 4)
    assert pool.takes() == 0
    pool.board.post(2, 3)
    assert not pool.insists()
    assert pool.takes() == 0


@pytest.mark.parametrize("hung", [(0,), (0, 0, 0), (3, 5, 0)])
def test_what_nobody_else_takes_is_taken(hung: tuple[int, ...]) -> None:
    """We get ahead by twice as much each time: soon enough, whatever we have."""
    pool = Pool(1000, *hung)
    assert not pool.turns.ours()
    looks = 0
    while not pool.insists():
        looks += 1
    assert looks < 11
    assert pool.turns.ours()


def test_we_get_ahead_by_small_steps() -> None:
    """A sibling may only have been late: 1, 2, 4, 8 above the mean, not the whole queue."""
    pool = Pool(1, 0)
    ahead = []
    for _ in range(5):
        pool.takes()
        ahead.append(pool.share.connections - mean(pool.board.counts()))
        assert not pool.turns.ours()
        pool.insists()
    assert ahead == sorted(ahead)
    assert ahead[0] <= 2
    assert all(after <= 2 * before + 2 for before, after in pairwise(ahead))


def test_the_further_ahead_the_longer_we_step_back() -> None:
    """A sibling that lives has time to run; one that moves is given no more than it needs."""
    pool = Pool(1000, 0, 0)
    assert not pool.turns.ours()
    waited = [pool.turns.patience]
    while not pool.insists():
        waited.append(pool.turns.patience)
    assert waited[:3] == [STEP_BACK, 2 * STEP_BACK, 4 * STEP_BACK]
    assert waited[3:] == [LONGEST_STEP_BACK] * (len(waited) - 3)
    assert sum(waited) < 0.2
    pool.board.post(2, 1)
    assert not pool.turns.ours()
    assert pool.turns.patience == STEP_BACK


def test_one_that_hangs_costs_its_siblings_no_second_wait() -> None:
    """Who has got ahead once goes on without stepping back."""
    pool = Pool(100, 0, 100)
    assert not pool.turns.ours()
    while not pool.insists():
        pass
    assert pool.takes() > 10


def test_a_sibling_that_is_back_gets_its_share() -> None:
    """The first sign of life takes our lead away."""
    pool = Pool(100, 0)
    assert not pool.turns.ours()
    while not pool.insists():
        pass
    assert pool.turns.ours()
    pool.board.post(2, 1)
    assert not pool.turns.ours()
    assert not pool.insists()


def test_one_that_has_more_than_its_share_too_proves_nothing() -> None:
    """It may take something because those who were to take it hang."""
    pool = Pool(100, 0, 90)
    assert not pool.turns.ours()
    looks = 0
    while not pool.insists():
        looks += 1
        pool.board.post(3, 90 + looks)
        assert looks < 11
    assert pool.turns.ours()


def test_who_is_back_at_the_mean_has_no_lead_any_more() -> None:
    """It was taken because somebody hung; the next time it has to be seen anew."""
    pool = Pool(40, 0)
    assert not pool.turns.ours()
    while not pool.insists():
        pass
    pool.board.post(2, 40)
    assert pool.turns.ours()
    pool.board.post(2, 0)
    assert not pool.turns.ours()


def test_who_had_next_to_nothing_has_no_lead_any_more() -> None:
    """Whatever was seen before is long ago."""
    pool = Pool(40, 0)
    assert not pool.turns.ours()
    while not pool.insists():
        pass
    for _ in range(39):
        pool.share.exit()
    assert pool.turns.ours()
    for _ in range(39):
        pool.share.enter()
    assert not pool.turns.ours()
