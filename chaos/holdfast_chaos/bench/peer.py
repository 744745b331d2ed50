"""LiteLLM's proxy, the peer that gateways are measured beside: made on demand, started as its manual advises.

Its manual's advice for production: one Uvicorn worker for each core (here one, as each Envoy here has one thread), logs
of errors only, no verbose mode. Telemetry is off, and so is all but forwarding: no key, no database, no callbacks, no
retries, no budget. It keeps connections to the engine, as Envoy does, and speaks HTTP/1.1 on them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from holdfast_chaos.errors import tail
from holdfast_testbed.progress import Progress

from .benchmark import BenchError, Setting

NAME = "LiteLLM"
VERSION = "1.108.7"
FOLDER = Path("out/litellm-venv")
START_SECONDS = 120.0
"""It imports for some fifteen seconds of one core."""
INSTALL_SECONDS = 900.0
ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices from the Internet
    # A gateway without tenants asks for no key either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}


def wanted(setting: Setting) -> tuple[Path | None, str]:
    """LiteLLM's program, if it is to be compared with; else None, and a sentence why."""
    if NAME.lower() in setting.without:
        return None, f"{NAME} was left out."
    try:
        return installed(setting.progress), ""
    except BenchError as error:
        setting.progress.say(str(error))
        return None, f"{NAME} is missing here, as it could not be installed."


def installed(progress: Progress, folder: Path = FOLDER) -> Path:
    """LiteLLM's program, in a virtual environment of its own; made if it is missing. Raises BenchError."""
    program, done = folder / "bin" / "litellm", folder / f".installed-{VERSION}"
    if done.exists():
        return program.absolute()
    with progress.step(f"installing LiteLLM {VERSION} into {folder} (once, 0.6 GB)"):
        folder.mkdir(parents=True, exist_ok=True)
        # Each release asks for certifi of its own day, which mirrors may not have; nothing here speaks TLS.
        any_certifi = folder / "overrides.txt"
        any_certifi.write_text("certifi\n")
        uv = Path(sys.executable).with_name("uv")
        python = folder / "bin" / "python"
        log = folder / "install.log"
        _run([sys.executable, "-m", "venv", str(folder)], log)
        _run(
            [str(uv), "pip", "install", "--system-certs", "--python", str(python), "--override", str(any_certifi),
             f"litellm[proxy]=={VERSION}"],
            log,
        )  # fmt: skip
        done.touch()
    return program.absolute()


def _run(command: list[str], log: Path) -> None:
    try:
        with log.open("ab") as out:
            subprocess.run(command, stdout=out, stderr=out, check=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = tail(log) or str(error)
        raise BenchError(
            f"LiteLLM {VERSION} cannot be installed; `--without litellm` leaves it out. The log ends with:\n{said}"
        ) from error


def config(model: str, engine: str) -> str:
    """Its configuration: one model, on an engine with that base URL."""
    known = {"model": f"openai/{model}", "api_base": engine, "api_key": "none"}
    return yaml.safe_dump(
        {
            "model_list": [{"model_name": model, "litellm_params": known}],
            "litellm_settings": {"set_verbose": False, "request_timeout": 600, "num_retries": 0, "callbacks": []},
        }
    )


def command(program: Path, config_file: Path, host: str, port: int) -> list[str]:
    """Its command line."""
    address = ["--host", host, "--port", str(port)]
    return [str(program), "--config", str(config_file), *address, "--num_workers", "1", "--telemetry", "False"]


def environment() -> Mapping[str, str]:
    """Its environment, without this project's own packages."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ENVIRONMENT
