"""`python -m holdfast_engine.engines.launch COMMAND…` becomes COMMAND, which the kernel ends when its parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        sys.exit(f"Error: {sys.argv[1]} cannot be run: {error.strerror}")


if __name__ == "__main__":
    main()
