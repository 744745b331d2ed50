"""Builds the layers above the base: dependencies (slow to build, the core's shared by all images), the model, and
the project's own code (tiny).

Each layer is a tar in the cache, named by a hash of everything that goes into it; one that exists is never built again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_testbed.commands import run, run_logged
from holdfast_testbed.errors import BuildError, CommandError
from holdfast_testbed.progress import Progress

from .archive import write_layer
from .project import Project, Recipe, content_key

INSTALL_ROOT = "opt/holdfast"
PYTHON = (3, 11)  # what Debian 12 has; wheels are chosen for it whatever runs this
PIP_SECONDS = 3600.0
MODEL = "tiny-llama.gguf"
# Parts of wheels that a CPU image on Linux never loads.
UNUSED = (
    "bin",
    "share",
    "numpy/**/tests",
    "openvino/libs/libopenvino_intel_gpu_plugin.so",
    "openvino/libs/libopenvino_intel_npu_plugin.so",
    "openvino/libs/libopenvino_intel_npu_compiler*.so",
    "openvino/include",
    "openvino/cmake",
)


def ensure_core_layer(layers: Path, project: Project, progress: Progress) -> Path:
    """The layer of what every image needs; containerd keeps and unpacks it once."""
    target = layers / f"core-{content_key({}, *project.dependencies, *UNUSED)}.tar"
    if not target.exists():
        with _installed(layers, "core", project.dependencies, None, progress) as root:
            write_layer(target, root, INSTALL_ROOT, uid=0)
    return target


def ensure_dependency_layer(layers: Path, core: Path, project: Project, recipe: Recipe, progress: Progress) -> Path:
    """The layer of what an image needs beyond the core, resolved together with the core's versions."""
    wanted = project.requirements(recipe)
    target = layers / f"{recipe.name}-dependencies-{content_key({}, core.name, *wanted)}.tar"
    if not target.exists():
        with _installed(layers, recipe.name, wanted, core, progress) as root:
            drop_files_of(core, root, INSTALL_ROOT)
            write_layer(target, root, INSTALL_ROOT, uid=0)
    return target


@contextmanager
def _installed(
    layers: Path, name: str, requirements: tuple[str, ...], core: Path | None, progress: Progress
) -> Iterator[Path]:
    """A temporary folder into which pip has installed, with compiled bytecode."""
    log = layers / f"pip-{name}.log"
    log.unlink(missing_ok=True)
    with (
        progress.step(f"{name}: installing dependencies"),
        tempfile.TemporaryDirectory(dir=layers, prefix="build-") as folder,
    ):
        root, constraints = Path(folder) / "root", Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{pin}\n" for pin in (pinned_versions(core) if core else ())))
        try:
            run_logged(pip_command(root, requirements, constraints), log, timeout=PIP_SECONDS)
        except CommandError as error:
            raise BuildError(f"pip could not install the dependencies of the {name} image. {error}") from error
        for pattern in UNUSED:
            for path in list(root.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        compile_bytecode(root)
        yield root


def pinned_versions(layer: Path) -> list[str]:
    """`name==version` of every distribution in a layer, read from its metadata folders."""
    with tarfile.open(layer) as tar:
        folders = {Path(name).parent.name for name in tar.getnames() if name.endswith(".dist-info/METADATA")}
    pairs = (folder.removesuffix(".dist-info").rsplit("-", 1) for folder in sorted(folders))
    return [f"{name}=={version}" for name, version in pairs]


def drop_files_of(layer: Path, root: Path, prefix: str) -> None:
    """Delete from a folder the files that a lower layer has with the same content."""
    with tarfile.open(layer) as tar:
        for member in tar:
            path = root / Path(member.name).relative_to(prefix) if member.isfile() else None
            if path is not None and path.is_file() and path.stat().st_size == member.size:
                content = tar.extractfile(member)
                if content is not None and content.read() == path.read_bytes():
                    path.unlink()
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def ensure_code_layer(layers: Path, project: Project, recipe: Recipe) -> Path:
    """The layer of the project's own packages."""
    sources = project.sources(recipe)
    target = layers / f"{recipe.name}-code-{content_key(sources, project.version)}.tar"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=layers, prefix="build-") as name:
        root = Path(name) / "root"
        for place, path in sources.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, root / place)
        metadata = root / f"holdfast-{project.version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: holdfast\nVersion: {project.version}\n")
        compile_bytecode(root)
        write_layer(target, root, INSTALL_ROOT, uid=0)
    return target


def ensure_model_layer(layers: Path, project: Project, progress: Progress) -> Path:
    """The layer with the tiny model, made by the engine's own command."""
    maker = project.packages["holdfast_engine"]
    files = {str(path.relative_to(maker)): path for path in maker.rglob("*model*.py")}
    target = layers / f"model-{content_key(files)}.tar"
    if target.exists():
        return target
    with (
        progress.step("engine: making the tiny model"),
        tempfile.TemporaryDirectory(dir=layers, prefix="build-") as name,
    ):
        root = Path(name) / "root"
        root.mkdir()
        run([sys.executable, "-m", "holdfast_engine", "make-model", str(root / MODEL)], timeout=300.0)
        for path in root.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        write_layer(target, root, "models", uid=0)
    return target


def pip_command(target: Path, requirements: tuple[str, ...], constraints: Path) -> list[str]:
    """The pip call that installs for Debian 12's Python into a folder."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(target)]
    if sys.version_info[:2] != PYTHON:
        version = ".".join(map(str, PYTHON))
        platforms = (
            "manylinux_2_34_x86_64",
            "manylinux_2_28_x86_64",
            "manylinux2014_x86_64",
            "manylinux_2_17_x86_64",
        )
        command += ["--python-version", version, "--only-binary=:all:"]
        command += [word for platform in platforms for word in ("--platform", platform)]
    return [*command, "--constraint", str(constraints), *requirements]


def compile_bytecode(root: Path) -> None:
    """Compile for the image's Python, if there is one of that version here; without, images start more slowly.

    The bytecode is marked as unchecked: nothing in an image changes, so nothing needs to be compared at import.
    """
    python = sys.executable if sys.version_info[:2] == PYTHON else shutil.which("python3.11")
    if python is None:
        return
    # fmt: off
    subprocess.run(
        [python, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash",
         "-s", str(root), "-p", f"/{INSTALL_ROOT}", str(root)],
        check=False, capture_output=True,  # some wheels carry files for other Pythons, which do not compile
    )
    # fmt: on
