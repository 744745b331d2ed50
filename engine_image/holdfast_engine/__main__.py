"""The command line: `holdfast-engine serve` and `holdfast-engine make-model`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from holdfast_engine.port import Engine

CPU_ONLY = ("max_model_len", "max_num_seqs", "cache_size_gib", "prefix_caching", "threads", "step_interval")
"""Options of `serve` that are the CPU engine's alone."""


@click.group()
def main() -> None:
    """An OpenAI-compatible server in front of an engine, and the tiny model that the CPU engine is tested with."""


@main.command()
@click.option("--engine", "kind", type=click.Choice(["openvino", "vllm"]), default="openvino", show_default=True)
@click.option(
    "--model",
    type=click.Path(exists=True, path_type=Path),
    help="A GGUF file; for vLLM a folder, or what follows -- names the model.",
)
@click.option("--served-name", required=True, help="The model's name in requests.")
@click.option("--host", default="0.0.0.0", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
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
    default=5.0,
    show_default=True,
    help="Seconds without a step, while requests run, after which the engine counts as stalled.",
)
@click.option("--drain-seconds", type=click.FloatRange(min=0), default=900.0, show_default=True)
@click.option(
    "--termination-log",
    type=click.Path(dir_okay=False, path_type=Path),
    default="/dev/termination-log",
    show_default=True,
    help="Where the cause of a bad end is left, if the file is there.",
)
@click.option("--engine-command", help="What starts vLLM's server, instead of vLLM's module in `python3`.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ENGINE_ARGS]...")
@click.pass_context
def serve(
    context: click.Context,
    kind: str,
    model: Path | None,
    served_name: str,
    host: str,
    port: int,
    max_model_len: int | None,
    max_num_seqs: int,
    cache_size_gib: int,
    prefix_caching: bool,
    threads: int,
    step_interval: float,
    progress_timeout: float,
    drain_seconds: float,
    termination_log: Path,
    engine_command: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Serve a model with OpenAI's API. What follows -- is given to vLLM's server as it is."""
    from holdfast_engine.server import ServeConfig
    from holdfast_engine.server import serve as run
    from holdfast_engine.wire import WorkerConfig

    if step_interval >= progress_timeout:
        raise click.UsageError("--step-interval must be less than --progress-timeout.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if kind == "vllm":
        engine = _vllm(context, model, served_name, engine_command, arguments)
        run(ServeConfig(engine, served_name, host, port, progress_timeout, drain_seconds, termination_log))
    if model is None or model.is_dir() or arguments or engine_command:
        raise click.UsageError("The CPU engine takes --model with a GGUF file, and no arguments of its own.")
    worker = WorkerConfig(
        model=str(model),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        cache_size_gib=cache_size_gib,
        threads=threads,
        step_interval=step_interval,
        prefix_caching=prefix_caching,
    )
    from holdfast_engine.engines.openvino import OpenVinoEngine

    engine = OpenVinoEngine(worker)
    run(ServeConfig(engine, served_name, host, port, progress_timeout, drain_seconds, termination_log))


def _vllm(
    context: click.Context, model: Path | None, served_name: str, command: str | None, arguments: tuple[str, ...]
) -> Engine:
    from holdfast_engine.engines.vllm import COMMAND, VllmEngine

    for name in CPU_ONLY:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is the CPU engine's; vLLM's arguments follow --.")
    try:
        return VllmEngine(arguments, served_name, None if model is None else str(model), command or COMMAND)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


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
