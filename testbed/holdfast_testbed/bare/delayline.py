"""Carries Ethernet frames between a link and a tap, each after a fixed delay: `python -m … LINK TAP DELAY_MS`.

Stands in for the kernel's netem where that is not built in. One thread, two queues; ends with its process, and the tap
with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x0002 | 0x1000
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
FRAME_BYTES = 65535
QUEUE_FRAMES = 20_000


class DelayQueue:
    """Frames waiting for their time; the oldest are kept and the newest lost when it is full."""

    def __init__(self, delay_seconds: float, send: Callable[[bytes], object]) -> None:
        self._delay = delay_seconds
        self._send = send
        self._waiting: deque[tuple[float, bytes]] = deque()

    def put(self, frame: bytes, now: float) -> None:
        """Take in a frame."""
        if len(self._waiting) < QUEUE_FRAMES:
            self._waiting.append((now + self._delay, frame))

    def release(self, now: float) -> float | None:
        """Send what is due; returns the seconds until the next is, None when nothing waits."""
        while self._waiting and self._waiting[0][0] <= now:
            frame = self._waiting.popleft()[1]
            with contextlib.suppress(OSError):  # a link that is down loses frames, as a real one does
                self._send(frame)
        return max(self._waiting[0][0] - now, 0.0) if self._waiting else None


def main(link: str, tap_name: str, delay_ms: int) -> None:
    """Carry frames until the process is ended."""
    # Protocol 0 receives nothing until bind names the link: no frame of another link slips in between.
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.bind((link, ETH_P_ALL))
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", tap_name.encode(), IFF_TAP_NO_PI))
    delay = delay_ms / 1000.0
    to_tap = DelayQueue(delay, lambda frame: os.write(tap, frame))
    to_wire = DelayQueue(delay, wire.send)
    while True:
        now = time.monotonic()
        pauses = [pause for queue in (to_tap, to_wire) if (pause := queue.release(now)) is not None]
        readable, _, _ = select.select([wire.fileno(), tap], [], [], min(pauses, default=None))
        now = time.monotonic()
        if wire.fileno() in readable:
            with contextlib.suppress(OSError):
                frame, source = wire.recvfrom(FRAME_BYTES)
                if source[2] != PACKET_OUTGOING:
                    to_tap.put(frame, now)
        if tap in readable:
            with contextlib.suppress(OSError):
                to_wire.put(os.read(tap, FRAME_BYTES), now)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
