"""The pause image: a static program that sleeps and reaps, holding a pod's namespaces. Built with the C compiler."""

from __future__ import annotations

import tempfile
from pathlib import Path

from holdfast_testbed.commands import run
from holdfast_testbed.paths import cache_root

from .archive import ImageSettings, write_archive, write_layer

TAG = "holdfast/pause:1"
PROGRAM = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_end(int number) { (void)number; _exit(0); }
static void on_child(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
  signal(SIGTERM, on_end);
  signal(SIGINT, on_end);
  signal(SIGCHLD, on_child);
  for (;;) pause();
}
"""


def ensure_pause_archive() -> Path:
    """The pause image's archive in the cache, built if it is not there."""
    target = cache_root() / "images" / "pause-1.tar"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        (folder / "pause.c").write_text(PROGRAM)
        root = folder / "root"
        root.mkdir()
        run(["gcc", "-static", "-Os", "-s", "-o", f"{root}/pause", f"{folder}/pause.c"])
        write_layer(folder / "layer.tar", root, uid=0)
        write_archive(target, (TAG,), ImageSettings(entrypoint=("/pause",)), [folder / "layer.tar"])
    return target
