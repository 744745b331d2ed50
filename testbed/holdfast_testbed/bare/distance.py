"""Puts distance between a region and the others: every packet waits, in each direction.

The kernel's netem does it where it is built in. Elsewhere the region's link is taken off the bridge and a small
process (`delayline`) carries its packets over, each after its delay.
"""

from __future__ import annotations

import signal
import sys

from holdfast_testbed.commands import run, succeeds
from holdfast_testbed.errors import ComponentError

from . import processes
from .components import enter_network
from .kubeapi import wait_until
from .network import link_exists
from .site import Site

DELAY_LINE = "delayline"


def add(site: Site, delay_ms: int) -> None:
    """Delay every packet of the region by so many milliseconds in each direction, instead of any delay before."""
    remove(site)
    outward = ["tc", "qdisc", "add", "dev", site.addresses.link, *_netem(delay_ms)]
    if succeeds(outward):
        run([*enter_network(site), "tc", "qdisc", "add", "dev", "eth0", *_netem(delay_ms)])
        return
    _start_delay_line(site, delay_ms)


def remove(site: Site) -> None:
    """Undo `add`; nothing happens when there is no delay."""
    link = site.addresses.link
    line = processes.recorded(site, DELAY_LINE)
    if line is not None:
        processes.signal_all([line.pid], signal.SIGKILL)
        wait_until(lambda: not link_exists(tap_name(site)), timeout=2.0, pause=0.01)
        run(["ip", "link", "set", link, "master", site.plan.bridge])
    elif site.namespace_path.exists():
        succeeds(["tc", "qdisc", "del", "dev", link, "root"])
        succeeds([*enter_network(site), "tc", "qdisc", "del", "dev", "eth0", "root"])


def tap_name(site: Site) -> str:
    """The link that stands on the bridge for the region's own while packets are delayed."""
    return f"{site.addresses.link}d"


def _netem(delay_ms: int) -> list[str]:
    return ["root", "netem", "delay", f"{delay_ms}ms", "limit", "20000"]


def _start_delay_line(site: Site, delay_ms: int) -> None:
    link, tap = site.addresses.link, tap_name(site)
    # The line sees packets as the sender leaves them: they must be whole, with their checksums, and of wire size.
    run([*enter_network(site), "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])
    module = f"{__package__}.delayline"
    log = site.logs / f"{DELAY_LINE}.log"
    line = processes.spawn([sys.executable, "-m", module, link, tap, str(delay_ms)], log)
    processes.record(site, DELAY_LINE, line)
    if not wait_until(lambda: link_exists(tap), timeout=5.0, pause=0.01):
        raise ComponentError("the delay line", site.name, log, "did not start")
    run(["ip", "link", "set", link, "nomaster"])
    run(["ip", "link", "set", tap, "master", site.plan.bridge, "up"])
