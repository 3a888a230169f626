"""The uncertainty autoencoder: the most information about the data, whatever it costs."""

from math import isfinite

from torch import Tensor

from pyro_lvm.objectives.elbo import likelihoods, weighed
from pyro_lvm.objectives.objective import Objective
from pyro_lvm.objectives.table import Table


class UncertaintyAutoencoder(Objective):
    r"""$I(x; z) \ge H(x) + E_{q(x, z)}[\log p(x \mid z)]$, the information that a noisy code z keeps of x.

    The guide is the channel $q(z \mid x)$, whose noise is part of the problem (a posterior with a fixed scale: a free
    one shrinks without end), and the model's likelihood is the decoder; the bound is tight where that is $q(x \mid z)$.
    It is the ELBO with β = 0 but for the data's entropy.

    Args:
        num_particles: K.
        entropy: H(x), nats per datum, where it is known: log N for the empirical distribution of N different data;
            without it the value is the bound up to that constant.
        vectorize_particles, max_plate_nesting: see `Objective`.

    Raises:
        ValueError: for an entropy that is not finite.

    References:
        Grover & Ermon (2019), Uncertainty Autoencoders: Learning Compressed Representations via Variational Information
        Maximization. Barber & Agakov (2003), The IM Algorithm.

    Example:
        >>> import torch
        >>> from pyro_lvm import guides, models, objectives
        >>> _ = torch.manual_seed(0)
        >>> model, guide = models.ProbabilisticPCA(4, latent_dim=2), guides.LinearNormal(4, latent_dim=2)
        >>> x = torch.randn(100, 4)
        >>> UncertaintyAutoencoder(10).loss(model, guide, x) < objectives.ELBO(10).loss(model, guide, x)
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        entropy: float = 0.0,
        vectorize_particles: bool = True,
        max_plate_nesting: int | float = float("inf"),
    ) -> None:
        super().__init__(num_particles, vectorize_particles=vectorize_particles, max_plate_nesting=max_plate_nesting)
        if not isfinite(entropy):
            raise ValueError(f"'entropy' is the data's, in nats per datum, and must be finite, not {entropy!r}.")
        self.entropy = entropy

    def bound(self, table: Table) -> Tensor:
        """Σ scale · (H(x) + E[log p(x | z)]), nats, summed over data."""
        return weighed(table, likelihoods(table), self.entropy * table.num_data(), self.state)
