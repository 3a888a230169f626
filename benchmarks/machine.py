"""What the numbers were measured on, and how fast it multiplies matrices."""

import os
import platform
import sys
from collections.abc import Callable, Iterable
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from time import perf_counter

import torch

from pyro_lvm.threads import threads

PACKAGES = ("torch", "pyro-ppl", "numpy", "scikit-learn", "jax", "numpyro", "pythae")


def description() -> dict[str, str | int]:
    """The machine, the versions and the day."""
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "date": date.today().isoformat(),
    }


@cache
def matrix_rate() -> float:
    """The best rate of float32 matrix products, floating-point operations a second: 1024 × 1024, all threads."""
    return best_rate((1024, 1024, 1024), seconds=3.0)


def best_rate(sizes: tuple[int, int, int], seconds: float = 0.1) -> float:
    """The best rate of the product (m, k) @ (k, n), by PyTorch's two libraries for it, operations a second."""
    m, k, n = sizes
    a, b = torch.randn(m, k, dtype=torch.float32), torch.randn(n, k, dtype=torch.float32)
    fastest = inf
    for count in {1, torch.get_num_threads()}:  # a small product is faster on one
        with torch.no_grad(), threads(count):
            fastest = min(fastest, *(_fastest(product, seconds) for product in _products(a, b)))
    return 2 * m * k * n / fastest


def _products(a: torch.Tensor, b: torch.Tensor) -> Iterable[Callable[[], object]]:
    out = torch.empty(len(a), len(b))
    yield lambda: torch.mm(a, b.T, out=out)
    if torch.backends.mkldnn.is_available():
        yield lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def _fastest(task: Callable[[], object], seconds: float) -> float:
    task()
    end, best = perf_counter() + seconds, inf
    while True:
        start = perf_counter()
        task()
        now = perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or sys.platform


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
