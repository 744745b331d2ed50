"""Which services a pass over the regions looks at."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from holdfast.adapters.cluster import Cluster
from holdfast.adapters.sites import Site
from holdfast.config import Config
from holdfast.domain.observation import Capabilities
from holdfast.fleet import Fleet
from holdfast.mirror import Mirror


class NoCluster:
    """A connection that is never used."""

    def lister(self, *_: Any, **__: Any) -> None:
        return None


def see(mirror: Mirror) -> None:
    mirror.complete = mirror.reachable = True
    mirror.heard_at = time.monotonic()


@pytest.fixture
def fleet() -> Fleet:
    nobody = cast(Cluster, NoCluster())
    found = Fleet(nobody, Config(region="us-east"), cast(Capabilities, None), lambda _: None)
    found.sites.peers["eu-west"] = Site.at("eu-west", nobody, "key", found.changed)
    for site in found.sites.all.values():
        for mirror in site.mirrors:
            see(mirror)
    found.sites.own.services.objects = {"default/chat": {}, "default/code": {}}
    found._touched()  # whatever had happened before is done
    return found


def test_nothing_is_looked_at_while_nothing_happens(fleet: Fleet) -> None:
    assert fleet._touched() == set()


def test_an_object_that_changed_is_looked_at_once(fleet: Fleet) -> None:
    fleet.sites.peers["eu-west"].services.touched = {"default/chat"}

    assert fleet._touched() == {"default/chat"}
    assert fleet._touched() == set()


def test_everything_is_looked_at_when_a_region_is_lost_from_sight_and_when_it_returns(fleet: Fleet) -> None:
    plans = fleet.sites.peers["eu-west"].plans

    plans.reachable = False
    assert fleet._touched() == {"default/chat", "default/code"}
    assert fleet._touched() == set()

    plans.reachable = True  # the last of its mirrors that is read again, and nothing in it differs
    assert fleet._touched() == {"default/chat", "default/code"}
    assert fleet._touched() == set()


def region(services: dict[str, str], *, verdict: str = "Healthy", annotations: dict[str, str] | None = None) -> Any:
    seen = [{"service": name, "verdict": each} for name, each in services.items()]
    status = {"observer": "eu-west", "verdict": verdict, "services": seen, "conditions": [{"type": verdict}]}
    return {"metadata": {"annotations": annotations or {}}, "spec": {}, "status": status}


def say(fleet: Fleet, manifest: Any) -> None:
    regions = fleet.sites.peers["eu-west"].regions
    regions.objects["us-east"], regions.touched = manifest, {"us-east"}


def test_what_an_observer_sees_of_one_service_concerns_that_one(fleet: Fleet) -> None:
    say(fleet, region({"default/chat": "Healthy", "default/code": "Healthy"}))
    assert fleet._touched() == {"default/chat", "default/code"}  # the first sight

    say(fleet, region({"default/chat": "Healthy", "default/code": "Unhealthy"}))
    assert fleet._touched() == {"default/code"}

    say(fleet, region({"default/chat": "Healthy"}))
    assert fleet._touched() == {"default/code"}

    say(fleet, region({"default/chat": "Healthy"}, verdict="Unhealthy"))
    assert fleet._touched() == set()


def test_what_people_ask_of_a_region_concerns_every_service(fleet: Fleet) -> None:
    say(fleet, region({"default/chat": "Healthy"}))
    fleet._touched()

    say(fleet, region({"default/chat": "Healthy"}, annotations={"drain": "yes"}))
    assert fleet._touched() == {"default/chat", "default/code"}


def test_an_observer_that_is_heard_again_concerns_every_service(fleet: Fleet) -> None:
    fleet.heartbeats.heard_at["eu-west"] = time.monotonic()

    assert fleet._touched() == {"default/chat", "default/code"}
    assert fleet._touched() == set()
