"""What the exact estimators share: data in, results out in kind, and words for bad input."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pyro_lvm.exact._numbers import check_integer

Array = TypeVar("Array", np.ndarray, Tensor)


def as_data(X: np.ndarray | Tensor, *, minimum: int = 1, features: int | None = None) -> Tensor:
    """Return data of shape (N, ...) as a finite float64 tensor of shape (N, D), or say what is wrong with it."""
    x = X if isinstance(X, Tensor) else _numeric(X)
    if x.is_complex():
        raise TypeError(
            f"'X' must hold real numbers, got dtype {x.dtype}: pass its real and imaginary parts as columns."
        )
    if x.ndim < 2:
        raise ValueError(
            f"'X' must have shape (N, D) or (N, *trailing), got {tuple(x.shape)}: "
            "use X[:, None] for N numbers or X[None] for one datum."
        )
    if x.numel() == 0:
        raise ValueError(
            f"'X' must hold at least {minimum} data, got an array of shape {tuple(x.shape)}: check the split."
        )
    x = x.reshape(len(x), -1).to(torch.float64)  # (N, D)
    check_count(x, minimum)
    if features is not None and x.shape[1] != features:
        raise ValueError(
            f"'X' must have the {features} features that fit saw, got {x.shape[1]}: pass data of the fitted kind."
        )
    # A sum needs no memory. On the CPU it is numpy's: torch's threads would spin on for a while in the way of a fit's.
    with np.errstate(over="ignore", invalid="ignore"):
        total = x.detach().numpy().sum() if x.device.type == "cpu" else x.detach().sum().item()
    if not math.isfinite(total):  # it may also overflow, so look again
        faults = (~torch.isfinite(x)).nonzero()
        if len(faults):
            row, column = faults[0].tolist()
            raise ValueError(
                f"'X' must be finite, got {x[row, column].item()} at row {row}, column {column}: drop or impute it."
            )
    return x


def check_count(x: Tensor, minimum: int) -> None:
    """Raise where there are fewer data than a model needs."""
    if len(x) < minimum:
        raise ValueError(f"'X' must hold at least {minimum} data, got {len(x)}: add data or lower 'n_components'.")


def _numeric(X: Any) -> Tensor:
    array = np.asarray(X)
    if array.dtype.kind not in "buifc":
        raise TypeError(
            f"'X' must be a dense numeric array or tensor, got {type(X).__name__} of dtype {array.dtype}: "
            "convert it to float64 first."
        )
    dtype = np.complex128 if array.dtype.kind == "c" else np.float64
    return torch.from_numpy(np.require(array, dtype, ["C", "W"]))  # a copy only where torch cannot share the memory


def in_kind(X: Array, value: Tensor) -> Array:
    """Return `value` as what X is: a tensor on X's device, or a numpy array."""
    if isinstance(X, Tensor):
        return value.to(X.device)
    return value.detach().cpu().numpy()


def as_parameter(name: str, value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a user's parameter as a float64 tensor of the stated shape."""
    parameter = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    if parameter.shape != shape:
        raise ValueError(
            f"'{name}' must have shape {shape}, got {tuple(parameter.shape)}: check the components and features."
        )
    if not bool(torch.isfinite(parameter).all()):
        raise ValueError(f"'{name}' must be finite, got NaN or infinity: leave it out to have it chosen from the data.")
    return parameter


def generator(random_state: Any) -> torch.Generator:
    """Return a generator of one's own, so that no global random state is read or changed."""
    seed = check_integer("random_state", random_state, 0, 2**32 - 1, fix="pass a seed such as 0")
    return torch.Generator().manual_seed(seed)


def warn_not_converged(estimator: Any) -> None:
    """Warn as scikit-learn does."""
    warnings.warn(
        f"{type(estimator).__name__} did not converge in max_iter={estimator.max_iter} iterations to "
        f"tol={estimator.tol:g} nats per datum: raise 'max_iter' or 'tol'.",
        ConvergenceWarning,
        stacklevel=3,
    )


class Density(DensityMixin, BaseEstimator, ABC):
    """Abstract: an estimator of a density, in scikit-learn's vocabulary."""

    mean_: Tensor
    means_: Tensor
    random_state: int
    _tensors: bool

    @abstractmethod
    def score_samples(self, X: Array) -> Array:
        """Return log p(x) in nats, one per datum, shape (N,)."""

    def score(self, X: np.ndarray | Tensor, y: None = None) -> float:
        """Return the mean of log p(x), in nats per datum."""
        return self.score_samples(as_data(X)).mean().item()

    @abstractmethod
    def _features(self) -> int:
        """Return D."""

    def _read(self, X: np.ndarray | Tensor) -> Tensor:
        """Return data to be scored, on the device of the fitted attributes."""
        check_is_fitted(self)
        return as_data(X, features=self._features()).to(self._device())

    @abstractmethod
    def _device(self) -> torch.device:
        """Return where the fitted attributes live."""

    def _handed_out(self, value: Tensor) -> Any:
        """Return drawn values as what fit was given: tensors, or numpy arrays."""
        return value if self._tensors else value.cpu().numpy()
