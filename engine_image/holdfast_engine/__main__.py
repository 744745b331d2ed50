"""The command line: `holdfast-engine serve`, `fetch`, `digest` and `make-model`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from holdfast.telemetry import logs
from holdfast.telemetry.options import log_format, tracing_options
from holdfast_engine.integrity import digest as read_digest
from holdfast_engine.model_errors import ModelError
from holdfast_engine.prepare import WantedModel
from holdfast_engine.sources import DEFAULT_CACHE, is_remote, local_path, obtain

if TYPE_CHECKING:
    from holdfast_engine.port import Engine
    from holdfast_engine.server import ServeConfig

CPU_ONLY = (*("max_model_len", "max_num_seqs", "cache_size_gib", "prefix_caching", "threads", "step_interval"),)
"""Options of `serve` that are the CPU engine's alone."""


def _source(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A URL of a known kind, or a path that exists."""
    if value is None or is_remote(value):
        return value
    try:
        path = local_path(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if not path.exists():
        raise click.BadParameter(f"Path '{value}' does not exist.")
    return value


def _sha256(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if len(value) != 64 or not set(value.lower()) <= set("0123456789abcdef"):
        raise click.BadParameter("write 64 hexadecimal digits, as `holdfast-engine digest` prints them")
    return value.lower()


_CACHE = click.option(
    "--model-cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_CACHE,
    show_default=True,
    help="Where models from hf://, s3:// and oci:// are fetched to.",
)
_SHA256 = click.option("--sha256", callback=_sha256, metavar="HEX", help="The model's digest; another is not accepted.")


def _traced(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(tracing_options("HOLDFAST_SERVE", "HOLDFAST")):
        command = option(command)
    return command


@click.group()
def main() -> None:
    """An OpenAI-compatible server in front of an engine, and the tiny model that the CPU engine is tested with."""


@main.command(context_settings={"auto_envvar_prefix": "HOLDFAST_SERVE"})
@click.option(
    "--engine", "kind", type=click.Choice(["openvino", "vllm", "triton"]), default="openvino", show_default=True
)
@click.option(
    "--model",
    callback=_source,
    metavar="SOURCE",
    help="A path, hf://, s3:// or oci://; for the CPU engine a GGUF file or a directory with one, for Triton a model "
    "repository.",
)
@_SHA256
@_CACHE
@click.option("--served-name", required=True, help="The model's name in requests.")
@click.option("--host", default="0.0.0.0", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="For KServe's inference protocol over gRPC; 0 = none. Over HTTP it is on --port.",
)
@click.option("--max-model-len", type=click.IntRange(min=2), help="Tokens; default: the model's context length.")
@click.option("--max-num-seqs", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--cache-size-gib", type=click.IntRange(min=1), default=1, show_default=True, help="KV cache.")
@click.option(
    "--prefix-caching/--no-prefix-caching",
    default=False,
    show_default=True,
    help="Reuse the KV cache of equal prompt beginnings; concurrent answers may then vary slightly.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For inference.")
@click.option(
    "--step-interval",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Least seconds from one generation step to the next; leaves CPU time to others on a shared machine.",
)
@click.option(
    "--progress-timeout",
    type=click.FloatRange(min=0.1),
    default=4.0,
    show_default=True,
    help="Seconds without a step, while requests run, after which the engine counts as stalled.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=900.0,
    show_default=True,
    help="How long, when asked to stop, requests that run may take to finish.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(min=0),
    default=256,
    show_default=True,
    help="Requests that may wait for a place; beyond, the lowest class is turned away first, with 429.",
)
@click.option(
    "--priority-ageing",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds of waiting that make up for one class of priority (high, normal, low).",
)
@click.option("--max-prompt-tokens", type=click.IntRange(min=1), help="For each request; default: the context length.")
@click.option("--max-output-tokens", type=click.IntRange(min=1), help="For each request; default: the context length.")
@click.option(
    "--sleep-after",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds without a request after which the engine gives up its memory, until the next one; 0 = never.",
)
@click.option(
    "--termination-log",
    type=click.Path(dir_okay=False, path_type=Path),
    default="/dev/termination-log",
    show_default=True,
    help="Where the cause of a bad end is left, if the file is there.",
)
@click.option("--engine-command", help="What starts the server of vLLM (default: its module in `python3`) or Triton.")
@click.option("--triton-model", metavar="NAME", help="Which model of Triton's repository; default: its only one.")
@_traced
@log_format("HOLDFAST_SERVE_LOG_FORMAT", "HOLDFAST_LOG_FORMAT")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ENGINE_ARGS]...")
@click.pass_context
def serve(
    context: click.Context,
    kind: str,
    model: str | None,
    sha256: str | None,
    model_cache: Path,
    served_name: str,
    host: str,
    port: int,
    grpc_port: int,
    max_model_len: int | None,
    max_num_seqs: int,
    cache_size_gib: int,
    prefix_caching: bool,
    threads: int,
    step_interval: float,
    progress_timeout: float,
    drain_seconds: float,
    max_queue: int,
    priority_ageing: float,
    max_prompt_tokens: int | None,
    max_output_tokens: int | None,
    sleep_after: float,
    termination_log: Path,
    engine_command: str | None,
    triton_model: str | None,
    otlp_endpoint: str,
    trace_sampling: float,
    log_format: str,
    arguments: tuple[str, ...],
) -> None:
    """Serve a model with OpenAI's API; it is fetched and verified first where that is asked for.

    What follows -- is given to vLLM's or Triton's server as it is. Each option can also be given as an environment
    variable: HOLDFAST_SERVE_MAX_QUEUE for --max-queue.
    """
    from holdfast_engine.admission import PROBE_PLACES
    from holdfast_engine.engines.openvino import OpenVinoEngine
    from holdfast_engine.limits import Limits
    from holdfast_engine.server import ServeConfig
    from holdfast_engine.server import serve as run
    from holdfast_engine.wire import WorkerConfig

    if triton_model is not None and kind != "triton":
        raise click.UsageError("--triton-model is Triton's.")
    if step_interval >= progress_timeout:
        raise click.UsageError("--step-interval must be less than --progress-timeout.")
    logs.set_up(log_format)
    limits = Limits(None, max_queue, priority_ageing, max_prompt_tokens, max_output_tokens)
    config = ServeConfig(
        served_name, host, port, grpc_port, progress_timeout, drain_seconds, limits, sleep_after, termination_log,
        otlp_endpoint, trace_sampling,
    )  # fmt: skip
    wanted = None if model is None else WantedModel(model, sha256, model_cache)
    if kind == "vllm":
        run(*_vllm(context, wanted, config, engine_command, arguments))
    if kind == "triton":
        run(*_triton(context, wanted, config, engine_command, triton_model, arguments))
    if wanted is None or arguments or engine_command:
        raise click.UsageError("The CPU engine takes --model with a GGUF file, and no arguments of its own.")
    worker = WorkerConfig(
        model=wanted.source,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs + PROBE_PLACES,
        cache_size_gib=cache_size_gib,
        threads=threads,
        step_interval=step_interval,
        prefix_caching=prefix_caching,
    )
    engine = OpenVinoEngine(worker, wanted)
    run(engine, replace(config, limits=replace(limits, places=max_num_seqs)))


def _vllm(
    context: click.Context,
    model: WantedModel | None,
    config: ServeConfig,
    command: str | None,
    arguments: tuple[str, ...],
) -> tuple[Engine, ServeConfig]:
    from holdfast_engine.engines import vllm_api
    from holdfast_engine.engines.vllm import COMMAND, VllmEngine

    _check_options(context, model, "vLLM", CPU_ONLY)
    try:
        engine = VllmEngine(arguments, config.served_name, model, command or COMMAND, sleeps=config.sleep_after > 0)
        return engine, replace(config, limits=replace(config.limits, places=vllm_api.places(arguments)))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _triton(
    context: click.Context,
    model: WantedModel | None,
    config: ServeConfig,
    command: str | None,
    triton_model: str | None,
    arguments: tuple[str, ...],
) -> tuple[Engine, ServeConfig]:
    """Triton does not tell how many requests its model works on at once: --max-num-seqs does, where it is given."""
    from holdfast_engine.engines.triton import COMMAND, TritonEngine
    from holdfast_engine.engines.vllm_api import DEFAULT_PLACES

    _check_options(context, model, "Triton", tuple(name for name in CPU_ONLY if name != "max_num_seqs"))
    if config.sleep_after:
        raise click.UsageError("Triton cannot sleep: leave out --sleep-after.")
    by_default = context.get_parameter_source("max_num_seqs") is ParameterSource.DEFAULT
    places = DEFAULT_PLACES if by_default else context.params["max_num_seqs"]
    try:
        engine = TritonEngine(arguments, model, triton_model, command or COMMAND)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return engine, replace(config, limits=replace(config.limits, places=places))


def _check_options(context: click.Context, model: WantedModel | None, engine: str, others: tuple[str, ...]) -> None:
    """Raise UsageError for options that are of no use with an engine whose server is a child process."""
    for name in others:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} is the CPU engine's; {engine}'s arguments follow --.")
    if model is None and context.params["sha256"]:
        raise click.UsageError("--sha256 is compared with the model that --model names before --.")


@main.command()
@click.argument("source", callback=_source)
@_SHA256
@_CACHE
def fetch(source: str, sha256: str | None, model_cache: Path) -> None:
    """Bring a model into the cache, going on where an earlier try broke off, and print its path."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        click.echo(obtain(source, model_cache, sha256, _to_stderr))
    except ModelError as error:
        _give_up(error)


@main.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Choice(["text", "json", "manifest"]), default="text", show_default=True)
def digest(path: Path, output: str) -> None:
    """Print the digest of a model's file or directory, as `serve --sha256` and spec.model.sha256 take it."""
    try:
        found = read_digest(path, _to_stderr)
    except ModelError as error:
        _give_up(error)
    if output == "json":
        files = [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in found.files]
        click.echo(
            json.dumps({"sha256": found.sha256, "path": str(path), "size": found.size, "files": files}, indent=2)
        )
    elif output == "manifest":
        click.echo(found.manifest, nl=False)
    else:
        click.echo(f"{found.sha256}  {path}")


def _to_stderr(line: str) -> None:
    click.echo(line, err=True)


def _give_up(error: ModelError) -> NoReturn:
    _to_stderr(str(error))
    raise SystemExit(error.exit_code) from error


@main.command("make-model")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def make_model(path: Path, seed: int) -> None:
    """Write a tiny random Llama as a GGUF file; the same seed gives the same bytes."""
    from holdfast_engine.tiny_model import write_tiny_model

    written = write_tiny_model(path, seed)
    click.echo(f"{written.path}: {written.size} bytes, sha256 {written.sha256}")


if __name__ == "__main__":
    main()
