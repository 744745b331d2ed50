"""The command line: `holdfast-engine serve` and `holdfast-engine make-model`."""

from __future__ import annotations

import logging
from pathlib import Path

import click


@click.group()
def main() -> None:
    """An OpenAI-compatible engine on CPU, and the tiny model it is tested with."""


@main.command()
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="A GGUF file.",
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
def serve(
    model: Path,
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
) -> None:
    """Serve a GGUF model with OpenAI's API."""
    from holdfast_engine.engines.openvino import OpenVinoEngine
    from holdfast_engine.server import ServeConfig
    from holdfast_engine.server import serve as run
    from holdfast_engine.wire import WorkerConfig

    if step_interval >= progress_timeout:
        raise click.UsageError("--step-interval must be less than --progress-timeout.")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    worker = WorkerConfig(
        model=str(model),
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        cache_size_gib=cache_size_gib,
        threads=threads,
        step_interval=step_interval,
        prefix_caching=prefix_caching,
    )
    run(ServeConfig(OpenVinoEngine(worker), served_name, host, port, progress_timeout, drain_seconds))


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
