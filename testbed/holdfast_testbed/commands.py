"""Runs the host's commands: the one place that starts a short-lived child process and reads its output."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from .errors import CommandError, HostError


def run(
    argv: list[str], *, timeout: float = 60.0, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Run a command to its end and return its standard output; CommandError if it fails or takes too long."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env=env, cwd=cwd, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise HostError(f"The command `{argv[0]}` is missing on this machine; install it first.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, f"no end after {timeout:.0f} s") from error
    if done.returncode != 0:
        raise CommandError(argv, done.stderr + done.stdout)
    return done.stdout


def succeeds(argv: list[str], *, timeout: float = 60.0) -> bool:
    """Whether a command can be run and ends with success."""
    try:
        run(argv, timeout=timeout)
    except (CommandError, HostError):
        return False
    return True


def run_logged(
    argv: list[str],
    log: Path,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long command with its output in a log; CommandError carries the log's end."""
    with log.open("ab") as out:
        try:
            done = subprocess.run(
                argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=timeout, env=env, cwd=cwd
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(argv, f"no end after {timeout:.0f} s; see {log}") from error
    if done.returncode != 0:
        raise CommandError(argv, log.read_text(errors="replace")[-4000:] + f"\n(log: {log})")
