"""How full a sliding window is, and when it has room again; pure.

The store keeps two numbers for each limit: what was counted in the present minute, and in the one before. Of the
earlier one the part counts that a window of the last 60 seconds would still cover, as if it had come evenly (the
approximation of the library `limits`, strategy "sliding window counter").
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """What a store has counted. Times in seconds."""

    length: int
    previous: int = 0
    previous_left: float = 0.0
    """Until nothing of the earlier count matters any more."""
    current: int = 0
    current_left: float = 0.0
    """Until nothing of the present count matters any more: between one and two lengths, if there is one."""

    @property
    def counted(self) -> int:
        """What lies in the window, rounded down."""
        return math.floor(self.previous * self.previous_left / self.length) + self.current

    @property
    def turns_in(self) -> float:
        """Until the present count becomes the earlier one."""
        return max(0.0, self.current_left - self.length)

    def remaining(self, limit: int) -> int:
        """How much there is room for."""
        return max(0, limit - self.counted)

    def wait(self, limit: int) -> float:
        """Seconds until there is room for one more, if nobody else comes; 0 if there is now, or in the next instant.
        `limit` is 1 at least.

        In the present minute what counts of the earlier one shrinks evenly to nothing. If the present count is
        too large by itself, it must have become the earlier one and have shrunk.
        """
        if self.counted < limit:
            return 0.0
        if self.current < limit:
            return max(0.0, self.previous_left - (limit - self.current) * self.length / self.previous)
        return max(0.0, self.current_left - limit * self.length / self.current)
