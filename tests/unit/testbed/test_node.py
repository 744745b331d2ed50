"""Judging a Node object."""

from __future__ import annotations

from typing import Any

from holdfast_testbed.bare.node import has_gpus, is_ready


def node(ready: str = "True", said: str = "2026-01-02T03:04:05Z", gpus: str = "8") -> dict[str, Any]:
    resources = {"nvidia.com/gpu": gpus}
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": said}
    return {"status": {"conditions": [condition], "capacity": resources, "allocatable": resources}}


SAID = 1767323045.0


def test_a_node_is_ready_when_it_says_so() -> None:
    assert is_ready(node())
    assert not is_ready(node(ready="Unknown"))
    assert not is_ready({})


def test_what_was_said_before_a_restart_does_not_count() -> None:
    assert is_ready(node(), since=SAID + 0.9)
    assert not is_ready(node(), since=SAID + 1.0)


def test_gpus_must_be_in_capacity_and_allocatable() -> None:
    assert has_gpus(node())
    assert not has_gpus(node(gpus="0"))
    assert not has_gpus({"status": {"capacity": {"nvidia.com/gpu": "8"}}})
