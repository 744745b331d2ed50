"""Reads from the project's source what its images hold: versions, dependencies, packages. No building here."""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_testbed.errors import BuildError


@dataclass(frozen=True)
class Recipe:
    """What one image is made of."""

    name: str
    extra: str  # the optional dependencies it takes
    packages: tuple[str, ...]  # import packages it holds
    module: str  # what it runs
    with_model: bool = False

    @property
    def tag(self) -> str:
        """The image's name."""
        return f"holdfast/{self.name}:dev"


_OWN_EXTRAS = re.compile(r"holdfast\[(?P<names>[^\]]+)\]")
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("operator", "operator", ("holdfast",), "holdfast"),
        Recipe("engine", "engine", ("holdfast", "holdfast_engine"), "holdfast_engine", with_model=True),
        Recipe("gateway", "gateway", ("holdfast", "holdfast_gateway"), "holdfast_gateway"),
    )
}


@dataclass(frozen=True)
class Project:
    """The project as its pyproject.toml describes it."""

    root: Path
    version: str
    dependencies: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    packages: dict[str, Path]  # import name → folder

    def requirements(self, recipe: Recipe) -> tuple[str, ...]:
        """What pip has to install for an image."""
        return self.dependencies + self._extra(recipe.extra)

    def _extra(self, name: str) -> tuple[str, ...]:
        """The requirements of an extra, those of the project's other extras that it names put in their place."""
        found: list[str] = []
        for wanted in self.extras.get(name, ()):
            if own := _OWN_EXTRAS.fullmatch(wanted):
                found += (each for other in own["names"].split(",") for each in self._extra(other.strip()))
            else:
                found.append(wanted)
        return tuple(dict.fromkeys(found))

    def sources(self, recipe: Recipe) -> dict[str, Path]:
        """Every file of the image's packages by its place below the import root."""
        found: dict[str, Path] = {}
        for package in recipe.packages:
            folder = self.packages[package]
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    found[str(Path(package) / path.relative_to(folder))] = path
        return found


def read_project(root: Path) -> Project:
    """The project in this folder; BuildError if it is none."""
    try:
        document: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())
        project = document["project"]
        packages = document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    except (OSError, KeyError) as error:
        raise BuildError(f"{root} is not Holdfast's source; name its folder with --source.") from error
    return Project(
        root=root,
        version=project["version"],
        dependencies=tuple(project["dependencies"]),
        extras={name: tuple(wanted) for name, wanted in project.get("optional-dependencies", {}).items()},
        packages={Path(package).name: root / package for package in packages},
    )


def find_project(start: Path) -> Path:
    """The folder of the project that holds this file."""
    for folder in start.resolve().parents:
        if (folder / "pyproject.toml").exists():
            return folder
    raise BuildError("The images are built from Holdfast's source; name its folder with --source.")


def content_key(files: dict[str, Path], *more: str) -> str:
    """A hash over files' names and contents and over further words."""
    digest = hashlib.sha256("\0".join(more).encode())
    for name, path in sorted(files.items()):
        digest.update(f"\0{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
