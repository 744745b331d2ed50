"""How many services Envoy can follow here: it opens an inotify instance for every file, and ends when there is none.

The kernel gives each user of a node so many (`fs.inotify.max_user_instances`, by default 128). A service that would
take the last ones is left out, and said to be; those that are served stay.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Collection, Sequence

from holdfast.api.route import Route

RESERVE = 8
"""Instances that are left to others: Envoy's files that do not grow with the services, what else the user runs."""
REMEDY = "raise fs.inotify.max_user_instances on its nodes (sysctl)"


def admit(
    routes: Sequence[Route], known: Collection[str], files: int, free: Callable[[int], int]
) -> tuple[tuple[Route, ...], tuple[str, ...]]:
    """The routes that can be served, and a sentence for each that cannot. `known`: keys of those that are served
    already. `files`: how many each takes. `free`: of so many inotify instances, how many there are."""
    new = [route for route in routes if route.key not in known]
    if not new:
        return tuple(routes), ()
    room = max(0, free(len(new) * files + RESERVE) - RESERVE) // files
    left_out = {route.key for route in new[room:]}
    problems = [
        f"{key} is left out: Envoy follows {files} files for it, and this node has no inotify instances left; {REMEDY}"
        for key in sorted(left_out)
    ]
    return tuple(route for route in routes if route.key not in left_out), tuple(problems)


def free_instances(wanted: int) -> int:
    """How many inotify instances this user can open now, `wanted` at most; it keeps none."""
    libc = ctypes.CDLL(None)
    opened: list[int] = []
    try:
        while len(opened) < wanted and (one := libc.inotify_init1(os.O_CLOEXEC)) >= 0:
            opened.append(one)
    finally:
        for one in opened:
            os.close(one)
    return len(opened)
