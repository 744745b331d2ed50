"""The cause of an engine's end, told from last lines as engines write them."""

from __future__ import annotations

import pytest

from holdfast_engine.causes import MAX_LENGTH, Cause, CauseReason, exit_code, tell

CORE = "(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] "
DRAGGED = [
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}"
]
FREE = (
    "ValueError: Free memory on device (3.22/4.0 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 3.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", CauseReason.GPU_OUT_OF_MEMORY),
        ("RuntimeError: CUDA error: out of memory", CauseReason.GPU_OUT_OF_MEMORY),
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 20 MiB.", CauseReason.GPU_OUT_OF_MEMORY),
        ("ValueError: No available memory for the cache blocks. Try increasing …", CauseReason.GPU_OUT_OF_MEMORY),
        (FREE, CauseReason.GPU_OUT_OF_MEMORY),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", CauseReason.CUDA_ERROR),
        ("torch.AcceleratorError: CUDA error: device-side assert triggered", CauseReason.CUDA_ERROR),
        ("RuntimeError: CUDA driver initialization failed, you might not have a CUDA gpu.", CauseReason.CUDA_ERROR),
        ("RuntimeError: Found no NVIDIA driver on your system.", CauseReason.CUDA_ERROR),
        ("RuntimeError: NCCL error: unhandled system error", CauseReason.CUDA_ERROR),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge",
            CauseReason.MODEL_CORRUPT,
        ),
        ("SafetensorError: Error while deserializing header: incomplete metadata", CauseReason.MODEL_CORRUPT),
        (
            "OSError: It looks like the config file at '/m/config.json' is not a valid JSON file.",
            CauseReason.MODEL_CORRUPT,
        ),
        ("ValueError: GGUF magic invalid", CauseReason.MODEL_CORRUPT),
        ("ValueError: cannot reshape array of size 28240 into shape (256,128)", CauseReason.MODEL_CORRUPT),
        ("RuntimeError: PytorchStreamReader failed reading zip archive", CauseReason.MODEL_CORRUPT),
        (
            "OSError: /models/x is not a local folder and is not a valid model identifier listed on 'https://hf.co/models'",
            CauseReason.MODEL_NOT_FOUND,
        ),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", CauseReason.MODEL_NOT_FOUND),
        (
            "RuntimeError: Cannot find any model weights with `/models/x`",
            CauseReason.MODEL_NOT_FOUND,
        ),
        ("Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.", CauseReason.KILLED),
        ("ValueError: Unknown argument", CauseReason.FAILED),
    ],
)
def test_a_cause_is_told_from_the_line_that_names_it_not_from_what_it_drags_behind(
    line: str, reason: CauseReason
) -> None:
    told = tell([f"{CORE}Traceback (most recent call last):", CORE + line, *DRAGGED], 1)
    assert told.reason == reason
    assert told.text.startswith(line)


def test_what_is_reported_but_no_error_is_not_the_cause() -> None:
    lines = [
        "INFO 09-28 15:57:17 [model_runner.py:1355] If CUDA out of memory occurs during cudagraph capture, consider …",
        "(Worker pid=9) WARNING 09-28 15:57:17 [cuda.py:55] CUDA error: none so far",
        'INFO:     127.0.0.1:50061 - "POST /v1/completions HTTP/1.1" 200 OK',
        "ValueError: the sky fell",
    ]
    assert str(tell(lines, 1)) == "EngineFailed: ValueError: the sky fell (exit code 1)"


def test_signal_9_is_an_out_of_memory_kill_whatever_was_said_before() -> None:
    assert tell(["RuntimeError: CUDA error: x"], -9).reason == CauseReason.KILLED


def test_without_an_error_the_last_line_is_told_and_without_a_line_the_code() -> None:
    assert tell(["one", "two", ""], 4) == Cause(CauseReason.FAILED, "two (exit code 4)")
    assert tell([], -11) == Cause(CauseReason.FAILED, "ended by signal 11")


def test_a_cause_is_one_short_line_without_colours() -> None:
    told = tell(["\x1b[31mRuntimeError: \x1b[0ma\tb" + "x" * 5000], 1)
    assert told.text.startswith("RuntimeError: a b")
    assert len(told.text) == MAX_LENGTH
    assert "\n" not in str(told)


@pytest.mark.parametrize(("code", "exits"), [(0, 1), (None, 1), (3, 3), (-9, 137), (-15, 143)])
def test_a_container_never_ends_well_when_its_engine_ends(code: int | None, exits: int) -> None:
    assert exit_code(code) == exits


TRITON_LOADING = (
    'W1121 21:52:34.130379 16271 pinned_memory_manager.cc:273] "CUDA driver version is insufficient for CUDA runtime"',
    'E1121 21:52:34.130525 16271 server.cc:241] "CudaDriverHelper has not been initialized."',
    'I1121 21:52:34.131680 16271 model_lifecycle.cc:472] "loading: tiny:1"',
    "E1121 21:52:34.267417 16271 model_lifecycle.cc:642] \"failed to load 'tiny' version 1: Internal: {said}"
    r'\n\nAt:\n  /models/tiny/1/model.py(1): <module>\n"',
    "+-------+---------+-------------------------------+",
    "| tiny  | 1       | UNAVAILABLE: CUDA error: busy |",
    'I1121 21:52:34.267768 16271 server.cc:345] "Timeout 30: Found 0 live models and 0 in-flight requests"',
    "error: creating server: Internal - failed to load all models",
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("RuntimeError: CUDA error: out of memory", CauseReason.GPU_OUT_OF_MEMORY),
        ("ModuleNotFoundError: No module named 'vllm'", CauseReason.FAILED),
        ("OSError: x is not a local folder and is not a valid model identifier", CauseReason.MODEL_NOT_FOUND),
    ],
)
def test_triton_tells_which_model_does_not_load_and_why(said: str, reason: CauseReason) -> None:
    cause = tell([line.replace("{said}", said) for line in TRITON_LOADING], 1)
    assert cause.reason == reason
    assert cause.text.startswith(f"failed to load 'tiny' version 1: Internal: {said}")
    assert "At:" not in cause.text


def test_triton_tells_that_there_is_no_repository() -> None:
    lines = [
        'I1121 21:57:38.340009 19231 server.cc:302] "No server context available. Exiting immediately."',
        "error: creating server: Internal - failed to stat file /nonexistent",
    ]
    assert tell(lines, 1) == Cause(CauseReason.MODEL_NOT_FOUND, lines[1])
