"""The semi-amortised guide: an encoder starts, gradient steps on the datum's own parameters finish."""

from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from pyro_lvm.configuration import Part
from pyro_lvm.programs import Program, data_plate


class SemiAmortized(Part):
    r"""$q(z \mid x) = \mathcal N(z \mid \mu_T, \mathrm{diag}(\sigma_T^2))$, T gradient steps after the encoder's.

    $\lambda_{t+1} = \lambda_t + \eta\, \nabla_\lambda \mathcal L(x; \lambda_t)$ with $\lambda = (\mu, \log \sigma)$ and
    $\mathcal L$ the datum's own ELBO under the model. Gradients pass through the steps, so that the encoder learns to
    start well and the model to be inferred well; the step size η is learned.

    The expectation in $\mathcal L$ is taken over two points, $\mu \pm \sigma \circ s_t$, with signs $s_t$ that are
    drawn once, when the guide is made, and saved with it. So q stays a function of x, as what reads log q twice needs,
    and runs use no random numbers but those of z. For a quadratic log p(x, z) the gradient by μ is exact, and that by
    log σ but for the correlations of the signs.

    Args:
        model: the program whose posterior it approximates, with one latent, the vector `"z"` of each datum.
        posterior: where it starts, x (..., *data_shape) to a diagonal normal: `posteriors.DiagonalNormal`.
        steps: T.
        step_size: where η starts, in squares of the latent space's unit.

    Sites:
        `"z"` (B, M).

    Raises:
        ValueError: where `steps` < 1, `step_size` is not positive, the model has other latents, or the posterior is no
            diagonal normal.

    References:
        Kim, Wiseman, Miller, Sontag & Rush (2018), Semi-Amortized Variational Autoencoders.

    Example:
        >>> from pyro_lvm import models, networks, posteriors
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> guide = SemiAmortized(model, posteriors.DiagonalNormal(networks.MLP(5, 4, (8,))), steps=3)
        >>> guide(torch.zeros(7, 5)).shape
        torch.Size([7, 2])
    """

    signs: Tensor

    def __init__(self, model: nn.Module, posterior: nn.Module, steps: int = 5, step_size: float = 0.01) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"'steps' is the number of gradient steps and must be at least 1, not {steps}.")
        if not 0 < step_size < float("inf"):
            raise ValueError(f"'step_size' must be positive and finite, not {step_size}.")
        self.model, self.posterior, self.steps = model, posterior, steps
        self.log_step_size = nn.Parameter(torch.tensor(log(step_size)))
        self.register_buffer("signs", 2.0 * torch.randint(2, (steps, _latent_dim(model))) - 1)

    def refined(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ after the steps, (B, M) each."""
        start = self.posterior(x)
        if not (isinstance(start, Independent) and isinstance(start.base_dist, Normal)):
            raise ValueError("'posterior' must give a diagonal normal to be refined: use posteriors.DiagonalNormal.")
        with_graph, eta = torch.is_grad_enabled(), self.log_step_size.exp()
        mu, log_sigma = start.base_dist.loc, start.base_dist.scale.log()
        for signs in self.signs:
            with torch.enable_grad():
                shifts = torch.zeros_like(mu, requires_grad=True), torch.zeros_like(mu, requires_grad=True)
                elbo = self._elbo(x, mu + shifts[0], log_sigma + shifts[1], signs)
                slopes = torch.autograd.grad(elbo, shifts, create_graph=with_graph)
            mu, log_sigma = mu + eta * slopes[0], log_sigma + eta * slopes[1]
        return mu, log_sigma

    def _elbo(self, x: Tensor, mu: Tensor, log_sigma: Tensor, signs: Tensor) -> Tensor:
        """Summed over data, up to a constant."""
        offset = log_sigma.exp() * signs
        z = torch.stack([mu + offset, mu - offset])  # (2, B, M)
        # What surrounds the guide, such as a plate of particles, must not see the model's statements; its parameters
        # must be seen, for whoever keeps them.
        with poutine.block(hide_types=["sample", "observe"]):
            trace = poutine.trace(poutine.condition(self.model, data={"z": z})).get_trace(x)
        return 0.5 * trace.log_prob_sum() + log_sigma.sum()

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        mu, log_sigma = self.refined(x)
        with data_plate(x, size):
            return pyro.sample("z", dist.Normal(mu, log_sigma.exp()).to_event(1))  # (B, M)


def _latent_dim(model: nn.Module) -> int:
    """M, found by running the model once; nothing outside sees it."""
    with torch.random.fork_rng(), torch.no_grad(), poutine.block():
        sites = prune_subsample_sites(poutine.trace(Program(model)).get_trace(size=1)).nodes
    drawn: dict[str, Any] = {name: site for name, site in sites.items() if site["type"] == "sample" and name != "x"}
    if drawn.keys() != {"z"} or drawn["z"]["fn"].event_dim != 1 or drawn["z"]["fn"].support.is_discrete:
        raise ValueError(
            "'model' must have one latent, a real vector 'z' for each datum, to be refined; it draws "
            f"{', '.join(repr(name) for name in drawn) or 'nothing'}."
        )
    return int(drawn["z"]["value"].shape[-1])
