"""Where traffic goes when observers see a region fail, and how it comes back."""

from __future__ import annotations

import time

from tests.integration.fleet.world import Mood, World, wait_for

from holdfast.api import names
from holdfast.cli.server import path

REGIONS = ("us-east", "eu-west", "ap-south")
WHOLE = ("Serving", 100)


def serve(world: World, name: str) -> str:
    """A service that all observers have seen answer everywhere."""
    world.apply("us-east", name)
    world.wait_planned(name)

    def seen() -> bool:
        for at in REGIONS:
            for of in REGIONS:
                status = world.servers[at].get(path("Region", "", of)).get("status", {})
                verdicts = {each["service"]: each["verdict"] for each in status.get("services", ())}
                if verdicts.get(f"default/{name}") != "Healthy":
                    return False
        return True

    wait_for("healthy everywhere", seen)
    return name


def state(world: World, name: str, region: str) -> str:
    return world.traffic("us-east", name)[region][0]


def test_engines_that_hang_are_drained_and_their_capacity_asked_of_the_others(world: World) -> None:
    name = serve(world, "hung")
    world.gateways["ap-south"].mood = Mood.HUNG

    wait_for("the drain", lambda: state(world, name, "ap-south") == "Drained")

    plans = world.plans(name)
    assert sum(plan["replicas"] for region, plan in plans.items() if region != "ap-south") == 3
    said = wait_for(
        "the condition", lambda: (c := world.condition("eu-west", name, "Diverted")).get("status") == "True" and c
    )
    assert said["reason"] == "RegionUnhealthy"
    assert "generates no token" in said["message"]

    world.gateways["ap-south"].mood = Mood.WELL
    wait_for("the ramp", lambda: world.traffic("us-east", name)["ap-south"] == ("Ramping", 50))
    wait_for("the return", lambda: world.traffic("us-east", name)["ap-south"] == WHOLE)
    wait_for("the old capacity", lambda: {plan["replicas"] for plan in world.plans(name).values()} == {1})
    wait_for("silence", world.quiet)


def test_a_region_whose_users_requests_fail_or_wait_in_vain_is_drained_though_probes_pass(world: World) -> None:
    name = serve(world, "users")
    gateway = world.gateways["ap-south"]
    gateway.traffic = {f"default/{name}": {"windowSeconds": 10, "requests": 40, "errors": 30}}
    wait_for("the drain", lambda: state(world, name, "ap-south") == "Drained")
    assert "failed 30 of 40 requests" in said_of(world, name, "ap-south")

    gateway.traffic = {}
    wait_for("the return", lambda: world.traffic("us-east", name)["ap-south"] == WHOLE)

    gateway.traffic = {f"default/{name}": {"windowSeconds": 10, "silentSeconds": 60}}
    wait_for("the drain", lambda: state(world, name, "ap-south") == "Drained")
    assert "generated no token for 60.0 s" in said_of(world, name, "ap-south")

    gateway.traffic = {}
    wait_for("the return", lambda: world.traffic("us-east", name)["ap-south"] == WHOLE)


def test_an_engine_that_is_too_busy_for_a_probe_but_generates_keeps_its_traffic(world: World) -> None:
    name = serve(world, "busy")
    gateway = world.gateways["ap-south"]
    gateway.traffic = {f"default/{name}": {"windowSeconds": 10, "requests": 40, "silentSeconds": 0.1}}
    gateway.mood = Mood.HUNG

    time.sleep(12)  # two probes have waited in vain by then; a hung engine is drained in this time

    assert state(world, name, "ap-south") == "Serving"
    gateway.mood, gateway.traffic = Mood.WELL, {}


def said_of(world: World, name: str, region: str) -> str:
    plan = world.plan("us-east", name)
    assert plan is not None
    return str(next(each["message"] for each in plan["traffic"] if each["region"] == region))


def test_no_more_than_the_allowed_fraction_is_drained(world: World) -> None:
    name = serve(world, "most")
    for region in ("us-east", "eu-west"):
        world.gateways[region].mood = Mood.FAILING

    wait_for(
        "one drain and one refusal",
        lambda: (
            sorted(each["reason"] for each in world.plans(name)["ap-south"]["traffic"])
            == ["RegionUnhealthy", "Steady", "TrafficStays"]
        ),
    )
    wait_for("silence", world.quiet)


def test_observers_that_see_nobody_move_nothing(world: World) -> None:
    name = serve(world, "blind")
    for gateway in world.gateways.values():
        gateway.mood = Mood.GONE

    wait_for(
        "closed eyes",
        lambda: all(
            each["verdict"] == "Unknown"
            for of in REGIONS
            for each in world.servers["us-east"].get(path("Region", "", of))["status"]["services"]
        ),
    )

    assert set(world.traffic("us-east", name).values()) == {WHOLE}


def test_people_drain_a_region_and_give_it_back(world: World) -> None:
    name = serve(world, "asked")
    region = path("Region", "", "eu-west")

    world.servers["ap-south"].merge(region, annotation(names.DRAIN_ANNOTATION, "2026-01-01T00:00:00Z"), "test-user")
    wait_for("the drain", lambda: state(world, name, "eu-west") == "Drained")

    world.servers["us-east"].merge(region, annotation(names.UNDRAIN_ANNOTATION, "2026-01-01T00:00:01Z"), "test-user")
    wait_for("the return", lambda: world.traffic("us-east", name)["eu-west"] == WHOLE)
    for server in world.servers.values():
        for key in (names.DRAIN_ANNOTATION, names.UNDRAIN_ANNOTATION):
            server.merge(region, annotation(key, None), "test-user")


def test_a_drain_that_takes_too_much_is_refused_in_a_sentence(world: World) -> None:
    name = serve(world, "refused")
    drain = annotation(names.DRAIN_ANNOTATION, "true")
    for each in ("eu-west", "ap-south"):
        world.servers["us-east"].merge(path("Region", "", each), drain, "test-user")
    try:
        wait_for(
            "one refusal",
            lambda: (
                sorted(each["reason"] for each in world.plans(name)["us-east"]["traffic"])
                == ["DrainRefused", "DrainRequested", "Steady"]
            ),
        )
        [refused] = [each for each in world.plans(name)["us-east"]["traffic"] if each["reason"] == "DrainRefused"]
        assert "at most 1 may be" in refused["message"]
    finally:
        for each in ("eu-west", "ap-south"):
            undo = annotation(names.DRAIN_ANNOTATION, None)
            world.servers["us-east"].merge(path("Region", "", each), undo, "test-user")


def annotation(key: str, value: str | None) -> dict[str, object]:
    return {"metadata": {"annotations": {key: value}}}


def test_a_new_leader_goes_on_where_the_last_one_was(world: World) -> None:
    name = serve(world, "inherited")
    world.gateways["ap-south"].mood = Mood.FAILING
    wait_for("the drain", lambda: state(world, name, "ap-south") == "Drained")
    leader, epoch = world.wait_leader()

    world.operators[leader].kill()

    wait_for("another leader", lambda: (found := world.leader()) and found[1] > epoch)
    others = tuple(region for region in REGIONS if region != leader)
    wait_for("its plans", lambda: all(plan["epoch"] > epoch for plan in world.plans(name, others).values()))
    assert state(world, name, "ap-south") == "Drained"
