"""Watching the files of TLS and the days that certificates have left, with a clock of our own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from daphne_supervisor.scoreboard import Scoreboard
from daphne_supervisor.worker.tls_pem import Pair
from daphne_supervisor.worker.tls_watch import INTERVAL, Watch, validity

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86400.0
END = 1000 * DAY
UNTIL = "1972-09-27 00:00 UTC"


def pair(expires: float = END, place: str = "c.pem") -> Pair:
    """Return a certificate that `expires`, in seconds since 1970."""
    return Pair(place, b"", "", b"", ("a.example",), 0.0, expires)


class Files:
    """Credentials whose files change as the test says."""

    where = "--certfile"

    def __init__(self, *pairs: Pair, unreadable: tuple[str, ...] = ()) -> None:
        """Have these, and nothing to say."""
        self.pairs = pairs
        self.lines: list[tuple[int, str]] = []
        self.looks = 0
        self.rested = False
        self._unreadable = list(unreadable)

    def unreadable(self) -> list[str]:
        """Return what cannot be read."""
        return self._unreadable

    def rest(self) -> None:
        """Take things as they are."""
        self.rested = True

    def look(self) -> list[tuple[int, str]]:
        """Return what is to be logged, once."""
        self.looks += 1
        lines, self.lines = self.lines, []
        return lines


class Clock:
    """An event loop that knows one timer, and the time of day."""

    def __init__(self, now: float) -> None:
        """Begin at `now`."""
        self.now = now
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def wall(self) -> float:
        """Return the time of day."""
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Remember the timer."""
        self.timers.append((delay, callback))

    def turn(self, seconds: float = INTERVAL) -> None:
        """Let `seconds` pass, and the timer run once."""
        self.now += seconds
        ((_, callback),) = self.timers
        self.timers.clear()
        callback()


def watch(
    clock: Clock, *files: Files, slot: int = 1, scoreboard: Scoreboard | None = None
) -> Watch:
    """Return a watch on `files`."""
    arguments: Any = (files, scoreboard or Scoreboard(), slot, clock, clock.wall)
    return Watch(*arguments)


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[str, str]]]:
    """Return what has been logged since the last call."""
    caplog.set_level(logging.INFO)

    def take() -> list[tuple[str, str]]:
        lines = [(each.levelname, each.getMessage()) for each in caplog.records]
        caplog.clear()
        return lines

    return take


@pytest.mark.parametrize(
    ("left", "level", "text"),
    [
        (15 * DAY, logging.INFO, f"is valid until {UNTIL}"),
        (14 * DAY, logging.WARNING, f"expires on {UNTIL}, in 14 days"),
        (3600.0, logging.WARNING, f"expires on {UNTIL}, in 0 days"),
        (0.0, logging.ERROR, f"has expired on {UNTIL}"),
        (-DAY, logging.ERROR, f"has expired on {UNTIL}"),
    ],
)
def test_the_days_that_are_left_say_how_bad_it_is(left: float, level: int, text: str) -> None:
    """From two weeks before the end it is a warning, from then on an error."""
    assert validity(pair(), END - left) == (level, f"TLS: certificate c.pem (a.example) {text}")


def test_files_are_looked_at_before_anybody_is_served_and_every_second() -> None:
    """A worker may be born long after its zygote has read them; each is looked at once."""
    clock, files = Clock(0.0), Files(pair())
    watch(clock, files, files).begin()
    assert files.looks == 1
    assert not files.rested
    clock.turn()
    clock.turn()
    assert files.looks == 3
    assert [delay for delay, _ in clock.timers] == [INTERVAL] == [1.0]


def test_who_speaks_plain_text_has_no_timer() -> None:
    """There is nothing to look at."""
    clock = Clock(0.0)
    watch(clock).begin()
    assert clock.timers == []


def test_what_has_changed_is_logged(said: Callable[[], list[tuple[str, str]]]) -> None:
    """At its level."""
    clock, files = Clock(0.0), Files(pair())
    watch(clock, files).begin()
    files.lines = [(logging.INFO, "new"), (logging.WARNING, "broken")]
    clock.turn()
    assert said() == [("INFO", "new"), ("WARNING", "broken")]
    clock.turn()
    assert said() == []


def test_one_worker_speaks_for_all(said: Callable[[], list[tuple[str, str]]]) -> None:
    """The one in the lowest slot that accepts; when it is gone, the next one."""
    scoreboard = Scoreboard()
    scoreboard.post(1, 0)
    clock, files = Clock(0.0), Files(pair())
    watch(clock, files, slot=2, scoreboard=scoreboard).begin()
    files.lines = [(logging.WARNING, "broken")]
    clock.turn()
    assert said() == []
    scoreboard.leave(1)
    files.lines = [(logging.WARNING, "broken")]
    clock.turn()
    assert said() == [("WARNING", "broken")]


def test_who_cannot_read_says_so_once(said: Callable[[], list[tuple[str, str]]]) -> None:
    """After --user the key may be root's alone: then HUP is what takes a new one up."""
    clock, files = Clock(0.0), Files(pair(), unreadable=("k.pem", "p.txt"))
    watch(clock, files).begin()
    assert files.rested
    assert said() == [], "a worker in a lower slot may be about to begin"
    clock.turn()
    assert said() == [
        (
            "INFO",
            (
                "TLS: --certfile: the workers' user cannot read k.pem, p.txt:"
                " send HUP when it has been replaced"
            ),
        )
    ]
    clock.turn()
    assert said() == []


def test_the_end_is_announced_each_day(said: Callable[[], list[tuple[str, str]]]) -> None:
    """When the last two weeks begin, at each midnight (UTC), and when it is over."""
    clock, files = Clock(END - 14.5 * DAY), Files(pair(END + 3600.0))
    watch(clock, files).begin()
    assert said() == []
    seen = []
    for _ in range(int(15.5 * 24)):
        clock.turn(3600.0)
        seen += [level for level, _ in said()]
    assert seen == ["WARNING"] * 15 + ["ERROR"] * 2


def test_each_certificate_is_judged_by_itself(
    said: Callable[[], list[tuple[str, str]]],
) -> None:
    """One that is good has no part in the warnings of another."""
    clock = Clock(END - 3.5 * DAY)
    watch(clock, Files(pair(), pair(END + 90 * DAY, "good.pem"))).begin()
    clock.turn(DAY)
    assert ["c.pem" in text for _, text in said()] == [True]


def test_what_the_zygote_has_said_is_not_said_again(
    said: Callable[[], list[tuple[str, str]]],
) -> None:
    """A worker that is born within the last days keeps quiet until the next one."""
    clock, files = Clock(END - 3.5 * DAY), Files(pair())
    watch(clock, files).begin()
    clock.turn()
    assert said() == []
    clock.turn(DAY)
    assert [level for level, _ in said()] == ["WARNING"]


def test_a_new_certificate_that_ends_soon_is_warned_of(
    said: Callable[[], list[tuple[str, str]]],
) -> None:
    """Somebody may have put the wrong file there; of a good one it is said how long it is valid."""
    clock, files = Clock(END - 3.5 * DAY), Files(pair())
    watch(clock, files).begin()
    files.pairs = (pair(END + DAY, "new.pem"),)
    clock.turn()
    assert [level for level, _ in said()] == ["WARNING"]
    files.pairs = (pair(END + 90 * DAY, "good.pem"),)
    clock.turn()
    assert said() == [
        ("INFO", "TLS: certificate good.pem (a.example) is valid until 1972-12-26 00:00 UTC")
    ]
