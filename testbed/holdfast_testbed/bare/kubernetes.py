"""Builds Kubernetes from Debian's source package, once, into the cache.

Prebuilt control planes come from the internet only; Debian's source package is what any mirror has. The user's apt
configuration is left alone: source lines are derived from it into a private folder. The build happens in a temporary
folder of the cache which is renamed at the end, so a cache folder that exists is complete.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from holdfast_testbed.commands import run, run_logged
from holdfast_testbed.errors import BuildError, CommandError
from holdfast_testbed.locks import held
from holdfast_testbed.paths import cache_root
from holdfast_testbed.progress import Progress, Update

from . import apt_sources, debian
from .host import require_bookworm, require_space

VERSION = "v1.20.2"
BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
BUILD_GIB = 6.0
BUILD_SECONDS = 3 * 3600.0
# The vendored reflect2 crashes the API server under Go 1.18 and later; Debian's newer one does not.
REFLECT2 = "github.com/modern-go/reflect2"
GO_SOURCES = Path("/usr/share/gocode/src")


def binaries_folder() -> Path:
    """Where the binaries are, or will be."""
    return cache_root() / "kubernetes" / VERSION / "bin"


def ensure_binaries(progress: Progress) -> Path:
    """The folder with Kubernetes' binaries; builds them first if there are none (about ten minutes)."""
    target = binaries_folder()
    if _complete(target):
        return target
    with held(target.parent / ".lock"):
        if not _complete(target):
            _build_into(target, progress)
    return target


def _complete(target: Path) -> bool:
    return all((target / name).exists() for name in BINARIES)


def _build_into(target: Path, progress: Progress) -> None:
    require_bookworm("Building Kubernetes")
    require_space(target, BUILD_GIB, "Building Kubernetes")
    debian.ensure_packages(debian.KUBERNETES_BUILD, progress)
    base = target.parent
    for remains in base.glob("tree-*"):
        shutil.rmtree(remains, ignore_errors=True)
    log = base / "build.log"
    log.unlink(missing_ok=True)
    progress.say(f"Kubernetes {VERSION} is built once for this machine; the log is {log}")
    with tempfile.TemporaryDirectory(dir=base, prefix="tree-") as folder:
        try:
            with progress.step("downloading Kubernetes' source package") as update:
                source = _fetch_source(Path(folder), log, update)
            with progress.step(f"building Kubernetes {VERSION} (about ten minutes on two cores)"):
                built = _build(source, log)
        except CommandError as error:
            raise BuildError(f"Kubernetes could not be built. {error}") from error
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)


def _fetch_source(folder: Path, log: Path, update: Update) -> Path:
    apt = folder / "apt"
    (apt / "parts").mkdir(parents=True)
    (apt / "lists" / "partial").mkdir(parents=True)
    sources = apt_sources.source_stanzas(apt_sources.system_sources())
    if not sources:
        raise BuildError("apt knows no Debian 12 `main` archive to take Kubernetes' source from; add one.")
    for name, text in sources.items():
        (apt / "parts" / name).write_text(text)
    options = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{apt}/parts",
        "Dir::State::lists": f"{apt}/lists",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Cache::pkgcache": "",
        "APT::Sandbox::User": "root",  # the unprivileged downloader cannot enter a private folder
    }
    apt_get = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    run_logged([*apt_get, "update"], log, timeout=600.0, cwd=folder)
    update("source")
    run_logged([*apt_get, "source", "--download-only", "kubernetes"], log, timeout=1800.0, cwd=folder)
    described = next(folder.glob("kubernetes_*.dsc"), None)
    if described is None:
        raise BuildError(f"apt offered no source package `kubernetes`; see {log}.")
    update("unpacking")
    source = folder / "source"
    run(["dpkg-source", "--no-check", "-x", str(described), str(source)], timeout=600.0, cwd=folder)
    _replace_reflect2(source)
    return source


def _replace_reflect2(source: Path) -> None:
    vendored = source / "vendor" / REFLECT2
    shutil.rmtree(vendored)
    shutil.copytree(GO_SOURCES / REFLECT2, vendored, ignore=shutil.ignore_patterns("*_test.go"))


def _build(source: Path, log: Path) -> Path:
    """Run Kubernetes' own make in the old GOPATH layout; returns the folder of the binaries."""
    root = source / ".go" / "src" / "k8s.io" / "kubernetes"
    root.parent.mkdir(parents=True)
    root.symlink_to(source)
    go = {"GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": "", "GOCACHE": str(source.parent / "go-cache")}
    # fmt: off
    run_logged(
        ["make", "-C", str(root), "WHAT=" + " ".join(f"cmd/{name}" for name in BINARIES),
         f"KUBE_GIT_VERSION={VERSION}", "GOLDFLAGS=-s -w"],
        log, timeout=BUILD_SECONDS, env=os.environ | go,
    )
    # fmt: on
    staged = source.parent / "bin"
    staged.mkdir()
    for name in BINARIES:
        found = [path for path in (source / "_output" / "local" / "bin").rglob(name) if os.access(path, os.X_OK)]
        if not found:
            raise BuildError(f"The build of Kubernetes made no {name}; see {log}.")
        shutil.move(found[0], staged / name)
    return staged
