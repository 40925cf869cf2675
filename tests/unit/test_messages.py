"""The reports and their codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.messages import (
    LINGER,
    WORKER_REPORTS,
    ZYGOTE_REPORTS,
    BootFailed,
    Born,
    Decoder,
    Draining,
    Due,
    Grown,
    Heartbeat,
    Ready,
    Report,
    Stillborn,
    ZygoteReport,
    encode,
)

said_by_workers: st.SearchStrategy[Report] = st.one_of(
    st.builds(Ready),
    st.builds(Draining, st.text()),
    st.builds(BootFailed, st.text(), st.text()),
    st.builds(
        Heartbeat,
        requests=st.integers(0),
        messages=st.integers(0),
        loop_lag=st.floats(0, 100),
        rss=st.integers(0),
    ),
    st.builds(Due, st.text()),
)
said_by_zygotes: st.SearchStrategy[ZygoteReport] = st.one_of(
    st.builds(Grown),
    st.builds(Born, st.integers(1), st.integers(1)),
    st.builds(Stillborn, st.integers(1), st.text()),
    st.builds(BootFailed, st.text(), st.text()),
)


@given(st.lists(said_by_workers), st.data())
def test_what_workers_say_survives_the_way_in_any_slicing(
    sent: list[Report], data: st.DataObject
) -> None:
    """What is encoded is what is decoded, wherever the bytes are cut."""
    stream = b"".join(map(encode, sent))
    cut = data.draw(st.integers(0, len(stream)))
    decoder = Decoder(WORKER_REPORTS)
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == sent


@given(st.lists(said_by_zygotes))
def test_what_zygotes_say_survives_byte_by_byte(sent: list[ZygoteReport]) -> None:
    """As above, in the smallest pieces."""
    decoder = Decoder(ZYGOTE_REPORTS)
    heard = [
        report for byte in b"".join(map(encode, sent)) for report in decoder.feed(bytes([byte]))
    ]
    assert heard == sent


def test_a_report_is_one_line() -> None:
    """Line breaks in a traceback do not end the report."""
    line = encode(BootFailed("no", "Traceback\n  here\n"))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"\xff\n",
        b"\n",
        b"5\n",
        b"[]\n",
        b"null\n",
        b"{}\n",
        b'{"kind":[]}\n',
        b'{"kind":null}\n',
        b'{"kind":"unknown"}\n',
        b'{"kind":"ready","more":1}\n',
        b'{"kind":"draining"}\n',
        LINGER,
    ],
)
def test_a_line_that_is_no_report_raises(line: bytes) -> None:
    """Only our own code writes to the channel, so a foreign line is an error, not noise."""
    with pytest.raises(ValueError, match=r".+"):
        Decoder(WORKER_REPORTS).feed(line)


@pytest.mark.parametrize("report", [Grown(), Born(1, 2), Stillborn(1, "no room")])
def test_a_worker_cannot_speak_for_a_zygote(report: ZygoteReport) -> None:
    """Each channel has its own vocabulary."""
    with pytest.raises(ValueError, match="is no report"):
        Decoder(WORKER_REPORTS).feed(encode(report))


@pytest.mark.parametrize("report", [Ready(), Draining("why"), Heartbeat(), Due("why")])
def test_a_zygote_cannot_speak_for_a_worker(report: Report) -> None:
    """As above."""
    with pytest.raises(ValueError, match="is no report"):
        Decoder(ZYGOTE_REPORTS).feed(encode(report))


def test_both_can_fail_to_boot() -> None:
    """With --preload it is the zygote that fails, and it says so in the same words."""
    failure = BootFailed("no such module", "Traceback")
    assert Decoder(WORKER_REPORTS).feed(encode(failure)) == [failure]
    assert Decoder(ZYGOTE_REPORTS).feed(encode(failure)) == [failure]


def test_the_order_on_the_channel_is_one_line() -> None:
    """A worker reads lines, too."""
    assert LINGER.endswith(b"\n")
    assert LINGER.count(b"\n") == 1
