"""Frames as hyperframe reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame

from daphne_supervisor.worker.http2_frames import (
    Code,
    ConnectionFault,
    StreamFault,
    check_setting,
    data_head,
    goaway,
    header_frames,
    ping,
    read_settings,
    reset,
    settings,
    settings_ack,
    window_update,
)


def read(data: bytes) -> list[Any]:
    """Return the frames in `data`."""
    frames = []
    while data:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + size]))
        frames.append(frame)
        data = data[9 + size :]
    return frames


def test_settings() -> None:
    """Ours, their acknowledgement, and the client's."""
    frame, ack = read(settings([(3, 100), (4, 2**31 - 1)]) + settings_ack())
    assert frame.settings == {3: 100, 4: 2**31 - 1}
    assert (ack.settings, set(ack.flags)) == ({}, {"ACK"})
    assert read_settings(frame.serialize()[9:]) == [(3, 100), (4, 2**31 - 1)]


def test_small_frames() -> None:
    """Pings, ends, windows."""
    one, two, end, cut, window = read(
        ping(b"12345678", ack=False)
        + ping(b"12345678", ack=True)
        + goaway(7, Code.ENHANCE_YOUR_CALM, "why")
        + reset(5, Code.CANCEL)
        + window_update(9, 70_000)
    )
    assert (one.opaque_data, set(one.flags), set(two.flags)) == (b"12345678", set(), {"ACK"})
    assert (end.last_stream_id, end.error_code, end.additional_data) == (7, 11, b"why")
    assert (cut.stream_id, cut.error_code) == (5, 8)
    assert (window.stream_id, window.window_increment) == (9, 70_000)


@pytest.mark.parametrize("end", [False, True])
def test_data(*, end: bool) -> None:
    """The head of a DATA frame says how long it is, and whether it is the last."""
    (frame,) = read(data_head(3, 16_384, end=end) + bytes(16_384))
    assert (frame.stream_id, len(frame.data)) == (3, 16_384)
    assert ("END_STREAM" in frame.flags) is end


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 32_768, 40_000])
def test_a_long_block_is_continued(size: int, *, end: bool) -> None:
    """No frame is longer than everybody has to take; only the last ends the block."""
    frames = read(header_frames(5, bytes(size), end=end))
    assert isinstance(frames[0], HeadersFrame)
    assert all(isinstance(frame, ContinuationFrame) for frame in frames[1:])
    assert b"".join(frame.data for frame in frames) == bytes(size)
    assert ["END_HEADERS" in frame.flags for frame in frames] == [
        frame is frames[-1] for frame in frames
    ]
    assert ("END_STREAM" in frames[0].flags) is end
    assert max(len(frame.data) for frame in frames) <= 16_384


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        (2, 2, Code.PROTOCOL_ERROR),
        (8, 2, Code.PROTOCOL_ERROR),
        (9, 2, Code.PROTOCOL_ERROR),
        (4, 2**31, Code.FLOW_CONTROL_ERROR),
        (5, 16_383, Code.PROTOCOL_ERROR),
        (5, 2**24, Code.PROTOCOL_ERROR),
    ],
)
def test_settings_have_their_range(setting: int, value: int, code: Code) -> None:
    """What a setting cannot be is an error of the connection."""
    with pytest.raises(ConnectionFault) as caught:
        check_setting(setting, value)
    assert caught.value.code is code
    check_setting(setting, 2**14 if setting == 5 else value - 2)
    check_setting(250, value)


def test_faults_say_what_they_are() -> None:
    """For the log, and for the client."""
    fault = StreamFault(3, Code.CANCEL, "why")
    assert (fault.stream, fault.code, fault.rule, str(fault)) == (3, Code.CANCEL, "why", "why")
