"""Where a model comes from: a path, or a URL whose scheme names the place; one file for each kind in `origins/`.

    /models/llama.gguf, file:///models/llama       what is there already (an image, a volume)
    hf://org/name[@revision][/path]                a hub of Hugging Face's kind
    s3://bucket/prefix                             an object, or all below a prefix
    oci://registry/repository:tag | @sha256:…      an artifact in a registry

The libraries that own the protocols are imported when they are needed; credentials are theirs to find.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from holdfast_engine.fetch import Origin, provide
from holdfast_engine.integrity import check
from holdfast_engine.model_errors import ModelUnavailable
from holdfast_engine.progress import Say

DEFAULT_CACHE = Path("/models-cache")
_TALKATIVE = ("boto3", "botocore", "s3transfer", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2", "oras")
"""Loggers that would write whole URLs, signed ones among them."""


def is_remote(source: str) -> bool:
    return source.partition("://")[0] in _ORIGINS if "://" in source else False


def local_path(source: str) -> Path:
    """The path of a source that is not remote. Raises ValueError for an unknown scheme."""
    scheme, separator, rest = source.partition("://")
    if not separator:
        return Path(source)
    if scheme != "file":
        raise ValueError(f"unknown scheme {scheme}://; use a path, file://, {', '.join(f'{s}://' for s in _ORIGINS)}")
    return Path(rest)


def obtain(source: str, cache: Path, expected: str | None, say: Say) -> Path:
    """The model's file or directory on this machine, its digest compared if `expected` is given.

    Blocks for as long as it takes. Raises ModelCorrupt, ModelUnavailable.
    """
    if is_remote(source):
        return provide(source, _origin(source, cache), cache, expected, say)
    path = local_path(source)
    if expected:
        check(path, expected, say)
    return path


def _origin(source: str, cache: Path) -> Origin:
    scheme, _, rest = source.partition("://")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HOME", str(cache / ".huggingface"))  # the root file system may be read-only
    module, extra = _ORIGINS[scheme]
    try:
        opener: Callable[[str], Origin] = import_module(f"holdfast_engine.origins.{module}").open_origin
    except ImportError as error:
        raise ModelUnavailable(
            f"{scheme}:// needs the package {error.name}, which is not in this image: install holdfast[{extra}]"
        ) from error
    return opener(rest)


_ORIGINS = {"hf": ("hub", "engine-hf"), "s3": ("s3", "engine-s3"), "oci": ("oci", "engine-oci")}
