"""Builds the project's images into the cache: one docker archive each, which changes only when its inputs do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast_testbed.bare import debian
from holdfast_testbed.bare.host import require_root, require_space
from holdfast_testbed.errors import BuildError, CommandError
from holdfast_testbed.locks import held
from holdfast_testbed.paths import cache_root
from holdfast_testbed.progress import SILENT, Progress

from . import layers
from .archive import ImageSettings, write_archive
from .base import ensure_base_layer
from .project import RECIPES, Project, Recipe, content_key, find_project, read_project

IMAGES_GIB = 4.0


def build_images(
    images: Sequence[str] | None = None, *, source: Path | None = None, progress: Progress = SILENT
) -> list[Path]:
    """Build these images (all by default) and return their archives, in the same order."""
    for name in images or ():
        if name not in RECIPES:
            raise BuildError(f"There is no image {name}, only {', '.join(RECIPES)}.")
    project = read_project(source or find_project(Path(__file__)))
    with held(cache_root() / "images" / ".lock"):
        return [_build(project, RECIPES[name], progress) for name in images or RECIPES]


def _build(project: Project, recipe: Recipe, progress: Progress) -> Path:
    folder = cache_root() / "images"
    store = folder / "layers"
    store.mkdir(parents=True, exist_ok=True)
    try:
        stack = _layers(store, project, recipe, progress)
    except CommandError as error:
        raise BuildError(f"The {recipe.name} image could not be built. {error}") from error
    key = content_key({}, *(layer.name for layer in stack))
    target = folder / f"{recipe.name}-{key}.tar"
    if not target.exists():
        _forget_outdated(folder, recipe, stack)
        with progress.step(f"{recipe.name}: writing the archive"):
            write_archive(target, (recipe.tag, f"holdfast/{recipe.name}:{key}"), image_settings(recipe), stack)
    return target


def _layers(store: Path, project: Project, recipe: Recipe, progress: Progress) -> list[Path]:
    """All layers of the image, lowest first."""
    if not any(store.glob("base-*.tar")):
        require_root()
        require_space(store, IMAGES_GIB, "Building images")
        debian.ensure_packages(debian.IMAGE_BUILD, progress)
    core = layers.ensure_core_layer(store, project, progress)
    stack = [
        ensure_base_layer(store, progress),
        core,
        layers.ensure_dependency_layer(store, core, project, recipe, progress),
    ]
    if recipe.with_model:
        stack.append(layers.ensure_model_layer(store, project, progress))
    return [*stack, layers.ensure_code_layer(store, project, recipe)]


def _forget_outdated(folder: Path, recipe: Recipe, stack: list[Path]) -> None:
    """Delete former archives and layers of the image; each is hundreds of megabytes."""
    for archive in folder.glob(f"{recipe.name}-*.tar"):
        archive.unlink()
    for layer in (folder / "layers").glob(f"{recipe.name}-*.tar"):
        if layer not in stack:
            layer.unlink()


def image_settings(recipe: Recipe) -> ImageSettings:
    """How the image is run."""
    return ImageSettings(
        entrypoint=("python3", "-m", recipe.module),
        env={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": f"/{layers.INSTALL_ROOT}",
            "PYTHONUNBUFFERED": "1",
            "HOME": "/tmp",
        },
    )
