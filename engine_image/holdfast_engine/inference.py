"""The only module that knows OpenVINO GenAI: loads a GGUF file, tokenizes prompts, runs generation steps.

Used by one thread of the pipeline process. Inference runs in 32-bit floats: OpenVINO 2026.4 divides by zero
(and takes the process with it) with bfloat16 on one thread. Prefix caching is off unless asked for: with
2026.4, bursts of greedy requests whose prompts share a beginning then sometimes differed from the same
requests sent alone; without it they never did.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import openvino
import openvino_genai

from holdfast_engine.port import Sampling
from holdfast_engine.wire import Loaded, WorkerConfig

SILENT_TYPES = (gguf.TokenType.CONTROL, gguf.TokenType.UNUSED)
"""Tokens that have no text in an answer."""
DEFAULT_CONTEXT_LENGTH = 4096
LEAST_TEMPERATURE = 1e-5
"""Below, the likeliest token is as good as certain, and logits that are divided by it may overflow."""


@contextmanager
def writable(model: str) -> Iterator[str]:
    """A path under which the model may be opened for writing: OpenVINO's GGUF reader opens files no other way, though
    it only reads. Where that is refused (an image's file, a read-only volume), a copy for the time of loading."""
    if os.access(model, os.W_OK):
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-model-") as folder:
        yield shutil.copyfile(model, str(Path(folder) / Path(model).name))


@dataclass(frozen=True)
class Output:
    tokens: list[int]
    finish_reason: str | None
    """"stop", "length", "ignored" (does not fit the KV cache) or None while it runs."""
    logprobs: list[float]
    """One for each token, where they were asked for; zeros otherwise."""


class Inference:
    """A loaded model. Not thread-safe; every call runs on the caller's thread."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._info = _read_gguf(config)
        self._pipeline: Any = self._make_pipeline()
        self._tokenizer = self._pipeline.get_tokenizer()
        self._defaults = self._pipeline.get_config()
        self._handles: dict[int, Any] = {}

    def _make_pipeline(self, *tokenizer: Any) -> Any:
        config = self._config
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = config.cache_size_gib
        scheduler.max_num_seqs = config.max_num_seqs
        scheduler.enable_prefix_caching = config.prefix_caching
        properties = {"INFERENCE_NUM_THREADS": config.threads, "INFERENCE_PRECISION_HINT": "f32"}
        with writable(config.model) as model:
            if not tokenizer:
                return openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
            return openvino_genai.ContinuousBatchingPipeline(model, *tokenizer, scheduler, "CPU", **properties)

    def rest(self, asleep: bool) -> None:
        """Give up the pipeline with its weights and its KV cache, which OpenVINO GenAI cannot empty otherwise; or make
        it anew, from the file that the system most likely still holds in memory. The tokenizer stays."""
        self._pipeline = None
        if asleep:
            ctypes.CDLL(None).malloc_trim(0)
        else:
            self._pipeline = self._make_pipeline(self._tokenizer)

    @property
    def info(self) -> Loaded:
        return self._info

    def encode_text(self, text: str) -> list[int]:
        return self._ids(text, add_special_tokens=True)

    def encode_messages(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Through the model's chat template, or "role: content" lines and a last "assistant:"."""
        if self._tokenizer.chat_template:
            history = [dict(message) for message in messages]
            text = self._tokenizer.apply_chat_template(history, add_generation_prompt=True)
            return self._ids(text, add_special_tokens=False)
        lines = [f"{message['role']}: {message['content']}\n" for message in messages]
        return self._ids("".join(lines) + "assistant:", add_special_tokens=True)

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        encoded = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return [int(token) for token in encoded.input_ids.data.reshape(-1)]

    def add(self, request: int, prompt_ids: Sequence[int], max_tokens: int, sampling: Sampling) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = max_tokens
        config.eos_token_id = self._defaults.eos_token_id
        config.stop_token_ids = self._defaults.stop_token_ids
        config.ignore_eos = sampling.ignore_eos
        if sampling.logprobs is not None:
            config.logprobs = 1  # of the chosen tokens; it tells no others
        config.do_sample = sampling.temperature >= LEAST_TEMPERATURE
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
        tokens = openvino.Tensor(np.asarray([prompt_ids], dtype=np.int64))
        self._handles[request] = self._pipeline.add_request(request, tokens, config)

    def cancel(self, request: int) -> None:
        """Forget the request; the next step frees what it holds."""
        self._handles.pop(request).cancel()

    def has_work(self) -> bool:
        return self._pipeline is not None and bool(self._pipeline.has_non_finished_requests())

    def step(self) -> dict[int, Output]:
        """Run one generation step: what each request with news produced. Finished requests are forgotten."""
        self._pipeline.step()
        outputs = {}
        for request, handle in list(self._handles.items()):
            output = _read(handle)
            if output.finish_reason is not None:
                del self._handles[request]
            if output.tokens or output.finish_reason is not None:
                outputs[request] = output
        return outputs

    def cache_usage(self) -> float:
        """Fraction (0 to 1) of the KV cache that the last step's requests held."""
        return float(self._pipeline.get_metrics().cache_usage) / 100


def _read(handle: Any) -> Output:
    tokens: list[int] = []
    logprobs: list[float] = []
    reason = None
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
            logprobs += output.generated_log_probs
            if output.finish_reason == openvino_genai.GenerationFinishReason.STOP:
                reason = "stop"
            elif output.finish_reason == openvino_genai.GenerationFinishReason.LENGTH:
                reason = "length"
    if reason is None:
        status = handle.get_status()
        if status == openvino_genai.GenerationStatus.IGNORED:
            reason = "ignored"
        elif status != openvino_genai.GenerationStatus.RUNNING:
            reason = "stop"
    return Output(tokens, reason, logprobs)


def _read_gguf(config: WorkerConfig) -> Loaded:
    """Vocabulary and context length; the tokenizer's own list fails on pieces that are not UTF-8."""
    reader = gguf.GGUFReader(config.model)

    def contents(key: str, default: Any = None) -> Any:
        found = reader.get_field(key)
        return default if found is None else found.contents()

    architecture = contents("general.architecture")
    trained = int(contents(f"{architecture}.context_length", DEFAULT_CONTEXT_LENGTH))
    types = contents("tokenizer.ggml.token_type", [])
    return Loaded(
        pieces=list(contents("tokenizer.ggml.tokens")),
        control=[token for token, kind in enumerate(types) if int(kind) in SILENT_TYPES],
        kind=str(contents("tokenizer.ggml.model")),
        max_model_len=min(config.max_model_len or trained, trained),
    )
