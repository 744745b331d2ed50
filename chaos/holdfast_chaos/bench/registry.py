"""Finds the benchmarks: every module in `cases` is one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from . import cases
from .benchmark import Benchmark


def names() -> list[str]:
    """The names of all benchmarks; imports none of them."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(cases.__path__))


def load(wanted: Iterable[str]) -> dict[str, Benchmark]:
    """The benchmarks with these names."""
    return {name: _benchmark(name) for name in wanted}


def _benchmark(name: str) -> Benchmark:
    module = importlib.import_module(f"{cases.__name__}.{name.replace('-', '_')}")
    found: Benchmark = module.BENCHMARK
    return found
