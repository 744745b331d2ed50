"""What three operators agree on, with three real API servers: edits, deletions, leaders, plans."""

from __future__ import annotations

import time
from typing import Any

from tests.integration.fleet.world import World, wait_for

from holdfast.api import names
from holdfast.cli.server import path

REGIONS = ("us-east", "eu-west", "ap-south")
TWO = {"defaults": {"replicas": {"min": 2, "max": 3}}}
THREE = {"defaults": {"replicas": {"min": 3, "max": 3}}}


def least(world: World, region: str, name: str) -> int:
    service = world.service(region, name)
    return int(service["spec"]["defaults"]["replicas"]["min"]) if service else 0


def test_an_edit_in_one_region_is_planned_in_all_and_then_nobody_writes(world: World) -> None:
    world.apply("us-east", "one")
    world.wait_planned("one", 1)
    world.apply("ap-south", "one", **TWO)
    world.wait_planned("one", 2)

    assert {least(world, region, "one") for region in REGIONS} == {2}
    assert {plan["epoch"] for plan in world.plans("one").values()} == {world.wait_leader()[1]}
    everywhere = "3 of 3 regions hold edit 2: ap-south, eu-west, us-east."  # a majority suffices for a plan
    wait_for("the copies", lambda: world.condition("eu-west", "one", "Replicated").get("message") == everywhere)
    wait_for("silence", world.quiet)


def test_one_manifest_applied_in_every_region_is_one_edit(world: World) -> None:
    before = sum(operator.metric("holdfast_copy_steps_total") for operator in world.operators.values())
    for server in world.servers.values():
        server.merge(path("Region", "", "us-east"), {"metadata": {"annotations": {"test": "1"}}}, "test-user")
    for region in REGIONS:
        world.operators[region].pause()
    for region in REGIONS:
        world.apply(region, "gitops")
    for region in REGIONS:
        world.operators[region].wake()

    world.wait_planned("gitops", 1)

    after = sum(operator.metric("holdfast_copy_steps_total") for operator in world.operators.values())
    assert after == before


def test_of_two_edits_at_once_one_wins_everywhere_and_the_other_is_reported(world: World) -> None:
    world.apply("us-east", "twice")
    world.wait_planned("twice", 1)
    for operator in world.operators.values():
        operator.pause()
    world.apply("us-east", "twice", **TWO)
    world.apply("eu-west", "twice", **THREE)
    for operator in world.operators.values():
        operator.wake()

    world.wait_planned("twice", 2)

    found = {least(world, region, "twice") for region in REGIONS}
    assert len(found) == 1
    loser = "us-east" if found == {3} else "eu-west"
    wait_for(
        "the report",
        lambda: world.condition(loser, "twice", "Replicated").get("reason") == "EditReplaced",
    )
    events = world.servers[loser].list("Event", "default")
    assert any(each["reason"] == "EditReplaced" and each["involvedObject"]["name"] == "twice" for each in events)


def test_a_deletion_reaches_a_region_that_was_away_for_it(world: World) -> None:
    world.apply("us-east", "gone")
    world.wait_planned("gone", 1)
    world.bed.fault("kill", "ap-south")
    world.servers["us-east"].delete(path("LLMService", "default", "gone"))
    wait_for("the deletion next door", lambda: world.service("eu-west", "gone") is None)
    listed = world.servers["eu-west"].get(path("Region", "", "eu-west"))["status"]["tombstones"]
    assert "default/gone" in [each["service"] for each in listed]

    world.bed.heal("ap-south")

    wait_for("the deletion of the copy that came back", lambda: world.service("ap-south", "gone") is None)
    wait_for("the end of the tombstones", lambda: not any(tombstones(world, region) for region in REGIONS))
    assert all(world.service(region, "gone") is None for region in REGIONS)


def tombstones(world: World, region: str) -> list[object]:
    found: list[object] = (
        world.servers[region].get(path("Region", "", region)).get("status", {}).get("tombstones") or []
    )
    return found


def test_a_service_made_anew_while_its_tombstone_stands_lives(world: World) -> None:
    world.apply("us-east", "again")
    world.wait_planned("again", 1)
    world.bed.fault("kill", "ap-south")
    world.servers["us-east"].delete(path("LLMService", "default", "again"))
    wait_for("the deletion", lambda: not world.service("us-east", "again") and not world.service("eu-west", "again"))

    world.apply("eu-west", "again", **TWO)
    wait_for("the copy next door", lambda: least(world, "us-east", "again") == 2)
    world.bed.heal("ap-south")

    wait_for("the new one in the region that was away", lambda: least(world, "ap-south", "again") == 2)
    world.wait_planned("again")
    wait_for("the end of the tombstones", lambda: not any(tombstones(world, region) for region in REGIONS))


def test_a_leader_that_is_told_to_stop_hands_over_and_the_next_goes_on(world: World) -> None:
    world.apply("us-east", "handed")
    world.wait_planned("handed", 1)
    leader, epoch = world.wait_leader()

    assert world.operators[leader].stop() == 0

    wait_for("another leader", lambda: (found := world.leader()) and found[0] != leader and found[1] > epoch)
    after = world.wait_leader()[1]
    wait_for("plans of the new epoch", lambda: {p["epoch"] for p in world.plans("handed").values()} == {after})


def test_a_leader_that_is_killed_is_followed_by_another(world: World) -> None:
    leader, epoch = world.wait_leader()
    world.operators[leader].kill()
    others = tuple(region for region in REGIONS if region != leader)

    world.apply(others[0], "orphan")

    wait_for("another leader", lambda: (found := world.leader()) and found[0] != leader and found[1] > epoch)
    wait_for("a plan", lambda: {plan["epoch"] > epoch for plan in world.plans("orphan", others).values()} == {True})


def test_a_leader_that_slept_past_its_lease_writes_nothing_more(world: World) -> None:
    world.apply("us-east", "slept")
    world.wait_planned("slept", 1)
    leader, epoch = world.wait_leader()
    world.operators[leader].pause()
    awake = next(region for region in REGIONS if region != leader)
    wait_for("another leader", lambda: next_leader(world, leader, epoch))
    newer = next_leader(world, leader, epoch)
    world.apply(awake, "slept", **TWO)
    wait_for("plans of the new epoch", lambda: {p["epoch"] for p in world.plans("slept").values()} == {newer})

    world.operators[leader].wake()

    until = time.monotonic() + 6
    while time.monotonic() < until:
        assert all(plan["epoch"] >= (newer or 0) for plan in world.plans("slept").values())
        time.sleep(0.05)
    world.wait_planned("slept", 2)


def next_leader(world: World, asleep: str, epoch: int) -> int | None:
    """The epoch of a leader other than the one that sleeps, whose metrics cannot be asked for."""
    for region, operator in world.operators.items():
        if region != asleep and operator.metric("holdfast_leading") and operator.metric("holdfast_epoch") > epoch:
            return int(operator.metric("holdfast_epoch"))
    return None


def test_a_plan_of_an_epoch_that_is_over_is_refused_by_its_region(world: World) -> None:
    world.apply("us-east", "stale")
    world.wait_planned("stale", 1)
    server = world.servers["eu-west"]
    where = path("RegionPlan", "default", "stale")
    for region in REGIONS:  # nobody mends the plan while its region judges it
        if region != "eu-west":
            world.operators[region].pause()
    wait_for("no leader", lambda: not world.operators["eu-west"].metric("holdfast_leading"))
    epoch = server.get(where)["spec"]["epoch"]

    server.merge(where, {"spec": {"epoch": epoch - 1, "replicas": 3}}, "test-user")

    refused = wait_for(
        "the refusal",
        lambda: (c := world.condition("eu-west", "stale", "Planned")).get("reason") == "PlanRefused" and c,
    )
    assert f"A plan of epoch {epoch - 1}" in refused["message"]


def test_without_a_majority_nothing_is_decided_and_the_edit_waits(world: World) -> None:
    world.apply("us-east", "alone")
    world.wait_planned("alone", 1)
    for region in ("eu-west", "ap-south"):
        world.bed.fault("kill", region)
    wait_for("the end of leading", lambda: not world.operators["us-east"].metric("holdfast_leading"))

    world.apply("us-east", "alone", **TWO)

    wait_for(
        "the minority's word",
        lambda: world.condition("us-east", "alone", "Replicated").get("reason") == "HeldByMinority",
    )
    wait_for("the lost quorum", lambda: world.region_condition("us-east", "us-east", "Quorum").get("status") == "False")
    assert (world.plan("us-east", "alone") or {})["number"] == 1
    for region in ("eu-west", "ap-south"):
        world.bed.heal(region)
    world.wait_planned("alone", 2)


def test_a_large_service_is_replicated_too(world: World) -> None:
    padding = [{"name": f"P{place}", "value": "x" * 1000} for place in range(900)]

    world.apply("us-east", "large", engine={"type": "openvino", "env": padding})

    world.wait_planned("large", 1)
    assert names.STAMP_ANNOTATION in (world.service("ap-south", "large") or {})["metadata"]["annotations"]


def test_a_region_that_refuses_an_edit_is_named_and_takes_it_once_it_can(world: World) -> None:
    manifest = {"metadata": {"name": "picky", "namespace": "elsewhere"}, "spec": world.spec("picky")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}
    for region in ("us-east", "eu-west"):
        world.servers[region].apply(namespace, "test-user")

    world.servers["us-east"].apply({"apiVersion": names.API_VERSION, "kind": "LLMService", **manifest}, "test-user")

    refused = wait_for("the refusal's name", lambda: (c := replicated(world)).get("reason") == "CopyRefused" and c)
    assert refused["status"] == "True"
    assert "2 of 3 regions hold edit 1" in refused["message"]
    assert "ap-south refuses it: " in refused["message"]
    assert "does namespace elsewhere exist?" in refused["message"]

    world.servers["ap-south"].apply(namespace, "test-user")
    wait_for("the copy", lambda: replicated(world).get("reason") == "HeldByMajority")
    world.servers["ap-south"].delete(path("LLMService", "elsewhere", "picky"))
    wait_for("the deletion", lambda: not world.servers["us-east"].find(path("LLMService", "elsewhere", "picky")))


def replicated(world: World) -> dict[str, Any]:
    found = world.servers["us-east"].get(path("LLMService", "elsewhere", "picky"))
    return next((c for c in found.get("status", {}).get("conditions", ()) if c["type"] == "Replicated"), {})
