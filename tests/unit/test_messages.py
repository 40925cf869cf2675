"""The reports and their codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daphne_supervisor.messages import BootFailed, Decoder, Draining, Heartbeat, Ready, encode

reports = st.one_of(
    st.builds(Ready),
    st.builds(Draining, st.text()),
    st.builds(BootFailed, st.text(), st.text()),
    st.builds(Heartbeat, requests=st.integers(0), loop_lag=st.floats(0, 100), rss=st.integers(0)),
)


@given(st.lists(reports), st.data())
def test_reports_survive_the_way_in_any_slicing(
    sent: list[Ready | Draining | BootFailed | Heartbeat], data: st.DataObject
) -> None:
    """What is encoded is what is decoded, wherever the bytes are cut."""
    stream = b"".join(map(encode, sent))
    cut = data.draw(st.integers(0, len(stream)))
    decoder = Decoder()
    assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == sent


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
        b"{}\n",
        b'{"kind":"unknown"}\n',
        b'{"kind":"ready","more":1}\n',
        b'{"kind":"draining"}\n',
    ],
)
def test_a_line_that_is_no_report_raises(line: bytes) -> None:
    """Only our own code writes to the channel, so a foreign line is an error, not noise."""
    with pytest.raises((ValueError, KeyError)):
        Decoder().feed(line)
