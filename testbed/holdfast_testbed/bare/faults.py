"""Injects faults into a bare region. Each acts within a second; `regions.heal` undoes them.

kill    the link goes down and every process of the region gets SIGKILL: containers too, found by namespace and cgroup
freeze  every process gets SIGSTOP: connections stay open and nobody answers
cut     the link goes down, everything behind it keeps running
delay   every packet takes longer, in both directions
"""

from __future__ import annotations

import signal

from holdfast_testbed import fault_record
from holdfast_testbed.commands import run
from holdfast_testbed.errors import ComponentError
from holdfast_testbed.provider import Fault, FaultKind

from . import distance, processes
from .site import Site


def inject(site: Site, fault: Fault) -> None:
    """Make the fault happen."""
    fault_record.add(site.folder, fault)
    match fault.kind:
        case FaultKind.KILL:
            _unplug(site)
            if not processes.kill_region(site):
                raise ComponentError("a process", site.name, site.logs, "did not end when it was killed")
        case FaultKind.FREEZE:
            processes.signal_region(site, signal.SIGSTOP)
        case FaultKind.CUT:
            _unplug(site)
        case FaultKind.DELAY:
            distance.add(site, fault.delay_ms)


def _unplug(site: Site) -> None:
    run(["ip", "link", "set", site.addresses.link, "down"])
