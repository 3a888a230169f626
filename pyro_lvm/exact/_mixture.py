"""What the mixtures share: responsibilities, hard starts by k-means++, and their methods."""

from __future__ import annotations

import warnings
from abc import abstractmethod

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from pyro_lvm.exact._estimator import Array, Density, generator, in_kind


class Mixture(Density):
    """Abstract: a fitted mixture of K components with means `means_` (K, D)."""

    n_components: int
    weights_: Tensor

    def predict_proba(self, X: Array) -> Array:
        """Return the responsibilities p(component | x), shape (N, K), rows summing to one."""
        return in_kind(X, self._log_joint(self._read(X)).softmax(0).mT.contiguous())

    def predict(self, X: Array) -> Array:
        """Return the most responsible component of each datum, shape (N,)."""
        return in_kind(X, self._log_joint(self._read(X)).argmax(0))

    @abstractmethod
    def _log_joint(self, x: Tensor) -> Tensor:
        """Return log responsibilities up to a constant per datum, shape (K, N)."""

    def _features(self) -> int:
        return self.means_.shape[1]

    def _device(self) -> torch.device:
        return self.means_.device


def restart_seeds(random_state: int, n_init: int) -> list[int]:
    """Return a seed per restart; the first does not depend on their number."""
    own = generator(random_state)
    return [int(torch.randint(2**31 - 1, (), generator=own)) for _ in range(n_init)]


def k_means_responsibilities(x: Tensor, components: int, seed: int) -> Tensor:
    """Return hard responsibilities (K, N) by k-means from a k-means++ start."""
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: the mixtures cope with clusters that stay empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = KMeans(components, n_init=1, random_state=seed).fit(x.detach().cpu().numpy()).labels_
    return one_hot(torch.as_tensor(labels, device=x.device), components)


def one_hot(labels: Tensor, components: int) -> Tensor:
    """Return responsibilities (K, N) of zeros and ones."""
    chosen = labels == torch.arange(components, device=labels.device)[:, None]
    return chosen.to(torch.float64)
