"""Why an engine process ended, told from its last lines and its exit: one table. Pure.

The cause becomes the container's termination message, `Reason: sentence` in one line: the reason is a word that a
condition can carry, the sentence is the engine's own where it said one. Rows are tried in order, because one failure
drags others behind it: memory that ran out ends as a CUDA error, and everything ends as "initialization failed".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from holdfast_engine.model_errors import ModelError

MAX_LENGTH = 600
"""Characters of a sentence; the kubelet keeps 4,096 bytes of a message."""


class CauseReason(StrEnum):
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    CUDA_ERROR = "CudaError"
    MODEL_CORRUPT = "ModelCorrupt"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    KILLED = "Killed"
    FAILED = "EngineFailed"


@dataclass(frozen=True)
class Cause:
    reason: CauseReason
    text: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.text}"


def cause_of(error: ModelError) -> Cause:
    """Why there is no model to load."""
    return Cause(CauseReason(type(error).__name__), str(error.args[0]))


_TABLE: tuple[tuple[CauseReason, re.Pattern[str]], ...] = tuple(
    (reason, re.compile("|".join(patterns), re.IGNORECASE))
    for reason, patterns in (
        (
            CauseReason.GPU_OUT_OF_MEMORY,
            (
                r"(cuda|hip|xpu) (error: )?out of memory",
                r"OutOfMemoryError",
                r"CUBLAS_STATUS_ALLOC_FAILED",
                r"No available memory for the cache blocks",
                r"Free memory on device .* is less than desired",
                r"larger than the (maximum number of tokens that can be stored|available KV cache memory)",
                r"KV cache is needed, which is larger than",
            ),
        ),
        (
            CauseReason.CUDA_ERROR,
            (
                r"(cuda|hip) error",
                r"CUDA (driver|runtime).*(error|insufficient|fail)",
                r"no CUDA-capable device|CUDA-capable device\(s\) is/are busy",
                r"cuda(Error|Get\w+\(\))",
                r"(CUBLAS|CUDNN|CUSPARSE)_STATUS_\w+",
                r"ncclUnhandledCudaError|NCCL error|ncclSystemError",
                r"Found no NVIDIA driver",
            ),
        ),
        (
            CauseReason.MODEL_CORRUPT,
            (
                r"SafetensorError|Header ?Too ?Large|InvalidHeader|MetadataIncompleteBuffer|incomplete metadata",
                r"checksum|digest mismatch|ModelCorrupt",
                r"PytorchStreamReader failed|invalid load key|unexpected EOF",
                r"(file|model|weights|checkpoint|shard)\b.*corrupt|corrupt.*\b(file|model|weights|checkpoint|shard)",
                r"not initialized from checkpoint|size mismatch for",
                r"not a valid JSON file|JSONDecodeError",
                r"cannot mmap an empty file|cannot reshape array of size",
                r"(magic|invalid|wrong).*gguf|gguf.*(magic|invalid)|GGUF magic",
            ),
        ),
        (
            CauseReason.MODEL_NOT_FOUND,
            (
                r"RepositoryNotFoundError|GatedRepoError|RevisionNotFoundError|EntryNotFoundError",
                r"is not a (local folder and is not a )?valid model identifier",
                r"Can't load the (configuration|model|tokenizer)|Cannot find any model weights",
                r"does not appear to have a file named|Invalid repository ID",
                r"HFValidationError|LocalEntryNotFoundError|Repository Not Found",
                r"failed to stat file|Python model file not found",
                r"(FileNotFoundError|No such file or directory).*(model|safetensors|gguf|config\.json|\.bin)",
            ),
        ),
        (
            CauseReason.KILLED,
            (r"died unexpectedly", r"Out of memory: Killed process", r"exit(ed)? (with )?code:? -?(9|137)\b"),
        ),
    )
)
_QUIET = re.compile(
    r"\b(DEBUG|INFO|WARNING)\b:? +(\d\d-\d\d \d\d:|\[|\d+\.\d+)|^(DEBUG|INFO|WARNING):"
    r"|^[IW]\d{4} \d\d:\d\d:\d\d\.\d+ |^[|+][ -]"
)
"""Lines of vLLM's, uvicorn's and Triton's loggers that report no error, whatever they speak of; Triton's tables."""
_TRITON = re.compile(r'^[EF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] +"?(?P<said>.*?)(\\n.*)?"?$')
"""An error of Triton's, and the first line of what it says."""
_PREFIX = re.compile(r"^(\([^()]*pid=\d+\) ?)*((ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?\s*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Exit|Interrupt)\b(:|$)|\b(error|fatal|failed|panic)\b", re.IGNORECASE)
_NO_CAUSE = re.compile(
    r'^(File "|[\^~]+$|Traceback |During handling|The above exception|frame #)|See root cause above|failed to start\.$'
    r"|failed to load all models$|CudaDriverHelper has not been initialized"
)
"""Lines around a cause, and those that point at another."""


def tell(lines: Sequence[str], returncode: int | None) -> Cause:
    """The cause of an end. `returncode` as of subprocess: negative = the signal, None = it did not end by itself."""
    said = [_said(line) for line in map(_plain, lines) if not _QUIET.search(line)]
    said = [line for line in said if line and not _NO_CAUSE.search(line)]
    if returncode == -9:
        return Cause(CauseReason.KILLED, "Ended by signal 9, as by the kernel when memory runs out.")
    for reason, pattern in _TABLE:
        if found := next((line for line in reversed(said) if pattern.search(line)), None):
            return Cause(reason, _short(found))
    last = next((line for line in reversed(said) if _ERROR.search(line)), said[-1] if said else None)
    how = _how(returncode)
    return Cause(CauseReason.FAILED, how if last is None else _short(f"{last} ({how})"))


def _said(line: str) -> str:
    """What a line says, without what its logger puts around it."""
    if (found := _TRITON.match(line)) is not None:
        return found["said"]
    return _PREFIX.sub("", line).strip()


def exit_code(returncode: int | None) -> int:
    """What the container exits with after its engine process did: never 0, 128 + n for signal n as shells have it."""
    if not returncode:
        return 1
    return returncode if returncode > 0 else 128 - returncode


def _how(returncode: int | None) -> str:
    if returncode is None:
        return "it did not end by itself"
    return f"exit code {returncode}" if returncode >= 0 else f"ended by signal {-returncode}"


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in _COLOUR.sub("", line))


def _short(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
