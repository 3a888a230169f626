"""The tail of importance weights, by ArviZ of either version."""

import warnings
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor


def is_arviz_1() -> bool:
    """Whether the installed ArviZ is 1.x, whose objects are xarray's trees and whose names are others."""
    return int(version("arviz").split(".")[0]) >= 1


def pareto_khat(log_w: Tensor) -> Tensor:
    """Pareto k-hat of each column of log-weights (K, B)."""
    K = len(log_w)
    if K < 25:
        return torch.full_like(log_w[0], torch.nan)
    spread = log_w.max(0).values - log_w.min(0).values
    khat = torch.full_like(log_w[0], -torch.inf)  # weights equal but for rounding, within 0.1 %, have no tail
    uneven = (spread > 1e-3) | spread.isnan()
    if bool(uneven.any()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ArviZ warns of its own future, and of every high k-hat, which we return
            rows = log_w[:, uneven].T.cpu().numpy()
            if is_arviz_1():
                values = _khat_of_arviz_1(rows)
            else:
                from arviz import psislw

                _, values = psislw(rows)
        khat[uneven] = torch.as_tensor(values, dtype=log_w.dtype, device=log_w.device).reshape(-1)
    return khat


def _khat_of_arviz_1(rows: np.ndarray) -> np.ndarray:
    """k-hat of each row; infinite where the largest weights are all the same, as ArviZ 0.23 has it: 1.x raises."""
    from arviz_stats.base import array_stats

    def khat(log_w: np.ndarray) -> np.ndarray:
        _, values = array_stats.psislw(-log_w, axis=-1)  # it takes what LOO has, log-densities to divide by
        return np.asarray(values)

    try:
        return khat(rows)
    except ValueError:
        if len(rows) == 1:
            return np.array([np.inf])
        return np.concatenate([_khat_of_arviz_1(row[None]).reshape(1) for row in rows])
