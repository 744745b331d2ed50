"""The delay line's queue, with time as a value."""

from __future__ import annotations

from holdfast_testbed.bare.delayline import QUEUE_FRAMES, DelayQueue


def test_a_frame_is_sent_when_its_delay_is_over_and_not_before() -> None:
    sent: list[bytes] = []
    queue = DelayQueue(0.05, sent.append)
    queue.put(b"frame", now=10.0)
    assert queue.release(10.04) is not None
    assert sent == []
    assert queue.release(10.06) is None
    assert sent == [b"frame"]


def test_order_is_kept_and_the_pause_is_that_of_the_next_frame() -> None:
    sent: list[bytes] = []
    queue = DelayQueue(1.0, sent.append)
    queue.put(b"one", now=0.0)
    queue.put(b"two", now=0.25)
    assert queue.release(1.0) == 0.25
    queue.release(2.0)
    assert sent == [b"one", b"two"]


def test_a_link_that_is_down_loses_frames_and_the_line_goes_on() -> None:
    def refuse(_: bytes) -> None:
        raise OSError("network is down")

    queue = DelayQueue(0.0, refuse)
    queue.put(b"frame", now=0.0)
    assert queue.release(0.0) is None


def test_a_full_queue_loses_the_newest() -> None:
    sent: list[bytes] = []
    queue = DelayQueue(0.0, sent.append)
    for _ in range(QUEUE_FRAMES + 5):
        queue.put(b"x", now=0.0)
    queue.release(0.0)
    assert len(sent) == QUEUE_FRAMES
