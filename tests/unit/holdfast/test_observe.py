"""What an observation takes from watched manifests."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.adapters.observe import LONGEST_WORDS, SpecUnreadable, Watched, Written, engine_pod, gather, parse_service
from holdfast.config import Config
from holdfast.domain.observation import Capabilities, Ref

SERVICE: dict[str, Any] = {
    "apiVersion": "serving.holdfast.dev/v1alpha1",
    "kind": "LLMService",
    "metadata": {
        "namespace": "default",
        "name": "chat",
        "uid": "0f1e",
        "generation": 1,
        "creationTimestamp": "2026-01-01T11:00:00Z",
        "resourceVersion": "10",
    },
    "spec": {
        "model": {"name": "m", "source": "file:///m"},
        "engine": {"type": "openvino"},
        "regions": [{"name": "us-east"}],
    },
}


def child(version: str, uid: str = "c1", owner: str = "0f1e", **fields: Any) -> dict[str, Any]:
    owners = [{"uid": owner, "controller": True}]
    meta = {"namespace": "default", "name": "chat-engine", "uid": uid, "resourceVersion": version}
    return {"kind": "Service", "metadata": {**meta, "ownerReferences": owners}, **fields}


def observe(written: Written, *children: dict[str, Any], **watched: Any) -> Any:
    whole = Watched(**{"service": SERVICE, "children": children, "pods": (), "regions": (), "services": (), **watched})
    return gather(whole, written, Config(region="us-east"), Capabilities())


def test_an_own_write_is_seen_before_the_watch_brings_it() -> None:
    ref = Ref("Service", "default", "chat-engine")
    written = Written({ref: child("12", spec="new")})

    assert observe(written, child("11", spec="old")).children[ref]["spec"] == "new"
    assert observe(written).children[ref]["spec"] == "new"


def test_a_newer_version_from_the_watch_replaces_the_own_write() -> None:
    ref = Ref("Service", "default", "chat-engine")
    written = Written({ref: child("12", spec="ours")})

    assert observe(written, child("13", spec="theirs")).children[ref]["spec"] == "theirs"
    assert written.objects == {}


def test_an_object_that_was_made_anew_by_others_is_believed() -> None:
    ref = Ref("Service", "default", "chat-engine")
    written = Written({ref: child("12", spec="ours")})

    assert observe(written, child("11", uid="c2", spec="anew")).children[ref]["spec"] == "anew"


def test_objects_with_our_labels_but_another_owner_are_not_ours() -> None:
    assert observe(Written(), child("11", owner="else")).children == {}


def test_a_region_that_cannot_be_read_counts_as_unknown() -> None:
    regions = [
        {"metadata": {"name": "us-east"}, "spec": {"gateway": {"address": "198.18.0.11"}}},
        {"metadata": {"name": "broken"}, "spec": {"gateway": {}}},
        {"metadata": {"name": "empty"}},
    ]

    assert set(observe(Written(), regions=regions).regions) == {"us-east"}


def test_a_spec_that_does_not_fit_is_described_by_field() -> None:
    with pytest.raises(SpecUnreadable, match=r"spec\.model\.source.*spec\.regions|spec\.regions.*spec\.model\.source"):
        parse_service({**SERVICE, "spec": {**SERVICE["spec"], "model": {"name": "m"}, "regions": []}})


def test_a_pods_trouble_is_found_wherever_kubernetes_says_it() -> None:
    meta = {"name": "p", "labels": {}}
    unschedulable = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}
    crashing = {
        "containerStatuses": [
            {
                "restartCount": 4,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            }
        ]
    }

    assert engine_pod({"metadata": meta, "status": unschedulable}).message == "0/3 nodes are available"
    pod = engine_pod({"metadata": meta, "status": crashing})
    assert (pod.waiting, pod.restarts, pod.last_exit) == ("CrashLoopBackOff", 4, "OOMKilled (exit code 137)")
    assert not engine_pod({"metadata": meta}).ready


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_an_engines_last_words_are_read_while_it_is_down_and_after_it_is_started_anew(where: str) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 65, "message": "ModelCorrupt: expected a, found b\n"}}
    status = {"containerStatuses": [{"restartCount": 1, where: ended}]}

    pod = engine_pod({"metadata": {"name": "p"}, "status": status})

    assert (pod.last_words, pod.last_exit) == ("ModelCorrupt: expected a, found b", "Error (exit code 65)")


def test_of_a_log_that_stands_for_last_words_the_end_is_kept() -> None:
    ended = {"terminated": {"exitCode": 2, "message": "x" * LONGEST_WORDS + "\nError: --port is set by the shim.\n"}}
    status = {"containerStatuses": [{"restartCount": 1, "lastState": ended}]}

    pod = engine_pod({"metadata": {"name": "p"}, "status": status})

    assert pod.last_words.endswith("\nError: --port is set by the shim.")
    assert len(pod.last_words) == LONGEST_WORDS
