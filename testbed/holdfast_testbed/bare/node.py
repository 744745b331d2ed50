"""Gives a region's node its GPUs and says whether it is ready.

The GPUs are extended resources set on the node's status: the scheduler honours them as it does real ones. The kubelet
keeps them over restarts because its device-plugin support is off (see `configs.kubelet`).
"""

from __future__ import annotations

from datetime import datetime

from .kubeapi import Json, KubeApi

GPU_RESOURCE = "nvidia.com/gpu"
GPUS = "8"


def node_ready(api: KubeApi, node: str, since: float = 0.0) -> bool:
    """Whether the node has said, after `since` (seconds of the epoch), that it is Ready; False when unknown."""
    try:
        return is_ready(api.get(f"/api/v1/nodes/{node}"), since)
    except OSError:
        return False


def ensure_gpus(api: KubeApi, node: str) -> bool:
    """Give the node its GPUs unless it has them; whether it has them now."""
    try:
        if has_gpus(api.get(f"/api/v1/nodes/{node}")):
            return True
        resources = {GPU_RESOURCE: GPUS}
        api.patch(f"/api/v1/nodes/{node}/status", {"status": {"capacity": resources, "allocatable": resources}})
        return has_gpus(api.get(f"/api/v1/nodes/{node}"))
    except OSError:
        return False


def is_ready(node: Json, since: float = 0.0) -> bool:
    """Whether a Node object says that it is Ready, and has said so after `since` (seconds of the epoch)."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            said = datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
            return said >= int(since)  # the time is given in whole seconds
    return False


def has_gpus(node: Json) -> bool:
    """Whether a Node object offers all of its GPUs."""
    status = node.get("status", {})
    return all((status.get(part) or {}).get(GPU_RESOURCE) == GPUS for part in ("capacity", "allocatable"))
