"""The guide of a hierarchy that goes down with its model."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.configuration import Part
from pyro_lvm.levels.level import Level, downwards
from pyro_lvm.programs import data_plate

# The range of log Δσ²: a posterior is at most e times as wide as its prior, and no narrower than e^-3.5 of it, so that
# neither a divergence nor a gradient runs away.
_LEAST, _MOST = -7.0, 2.0


class TopDown(Part):
    r"""$q(z_l \mid z_{>l}, x) = \mathcal N\big(\mu_l + \Delta\mu_l, (\sigma_l\, \Delta\sigma_l)^2\big)$.

    A deterministic path carries the data upwards, $r_1 = f_1(x)$, $r_l = f_l(r_{l-1})$. Then, from the top down, the
    model's own levels say what they expect, $\mathcal N(\mu_l, \sigma_l^2)$, and a head that reads $r_l$ and the state
    of the levels above says by how much x tells otherwise. Divergences are thus
    $\mathrm{KL}_l = \tfrac12 \sum (\Delta\mu_l^2 / \sigma_l^2 + \Delta\sigma_l^2 - \log \Delta\sigma_l^2 - 1)$, and a
    head that gives zeros leaves the model's own distribution, to the bit. log Δσ² is kept between −7 and 2, smoothly.

    The levels are the model's, the same modules: a gradient reaches them from both programs, and a saved pair shares
    them again.

    Args:
        levels: the model's, `model.levels`.
        path: networks f_1 from x (..., *data_shape), then f_l from r_{l−1}, to r_l (..., R_l), for every level.
        heads: for every level from the data upwards, a network from r_l and the state above as one vector (..., R_l +
            H), at the top from r_L alone, to (..., 2M): Δμ, then log Δσ² before it is squashed.

    Sites:
        `"z_L"` (B, M_L), ..., `"z_1"` (B, M_1): those of `models.Hierarchical`.

    Raises:
        ValueError: where the three do not have as many entries as one another, a level's distribution is no diagonal
            normal, or a head gives other than 2M values.

    References:
        Sønderby et al. (2016), Ladder Variational Autoencoders. Kingma et al. (2016), Improved Variational Inference
        with Inverse Autoregressive Flow (the ResNet VAE). Vahdat & Kautz (2020), NVAE: A Deep Hierarchical Variational
        Autoencoder.

    Example:
        >>> from pyro_lvm import levels, likelihoods, models, networks, priors
        >>> _ = torch.manual_seed(0)
        >>> top = levels.TopLevel(priors.StandardNormal(2), networks.MLP(2, 8, (8,)))
        >>> decoder = likelihoods.Bernoulli(networks.MLP(8, (4, 4), (8,)))
        >>> model = models.Hierarchical([levels.DenseLevel(8, 3), top], decoder)
        >>> path = [networks.MLP((4, 4), 6, (8,)), networks.MLP(6, 6, (8,))]
        >>> heads = [networks.MLP(6 + 8, 2 * 3, (8,)), networks.MLP(6, 2 * 2, (8,))]
        >>> TopDown(model.levels, path, heads)(torch.zeros(5, 4, 4)).shape  # of the lowest level
        torch.Size([5, 3])
    """

    def __init__(
        self,
        levels: Sequence[Level] | nn.ModuleList,
        path: Sequence[nn.Module],
        heads: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        if not len(levels) == len(path) == len(heads) or not len(levels):
            raise ValueError(
                "'levels', 'path' and 'heads' must have one entry for each level, at least one, but have "
                f"{len(levels)}, {len(path)} and {len(heads)}."
            )
        self.levels, self.path, self.heads = nn.ModuleList(levels), nn.ModuleList(path), nn.ModuleList(heads)

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        """Runs the program; see `data_plate` for `size`."""
        pyro.module("guide", self)
        with data_plate(x, size):
            rs = [x]
            for step in self.path:
                rs.append(step(rs[-1]))  # (B, R)
            h, z = None, x
            for number, level in downwards(self.levels):
                out = self.heads[number - 1](beside(rs[number], h))
                z = pyro.sample(f"z_{number}", relative(level.conditional(h), out, f"z_{number}"))  # (B, M)
                h = level.state(h, z) if number > 1 else None  # (B, H); here nothing reads the lowest
            return z


def relative(p: TorchDistribution, out: Tensor, name: str) -> TorchDistribution:
    r"""$\mathcal N(\mu + \Delta\mu, (\sigma \Delta\sigma)^2)$ of a normal p and a head's output, Δμ and a raw log Δσ².

    Args:
        p: with event shape (M,).
        out: (..., 2M).
        name: of the site, for errors.
    """
    normal = getattr(p, "base_dist", None)
    if not isinstance(normal, dist.Normal):
        raise ValueError(f"a top-down guide moves and scales diagonal normals, but the model's '{name}' is a {p}.")
    if out.shape[-1] != 2 * p.event_shape[-1]:
        raise ValueError(
            f"'heads' must give 2M values, Δμ and log Δσ², but '{name}' has M = {p.event_shape[-1]} dimensions and its "
            f"head gives {out.shape[-1]} values."
        )
    delta, raw = out.chunk(2, dim=-1)
    return dist.Normal(normal.loc + delta, normal.scale * (0.5 * squashed(raw)).exp()).to_event(1)


def squashed(raw: Tensor) -> Tensor:
    """log Δσ² between its limits, of a free number; smooth to the second derivative, 0 and slope 1 at 0.

    Example:
        >>> squashed(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([-7.,  0.,  2.])
    """
    return torch.where(raw > 0, _MOST * torch.tanh(raw / _MOST), -_LEAST * torch.tanh(raw / -_LEAST))


def beside(r: Tensor, h: Tensor | None) -> Tensor:
    """What a head reads, (..., R + H): the state has more dimensions on the left, and is not there at the top."""
    if h is None:
        return r
    batch = torch.broadcast_shapes(r.shape[:-1], h.shape[:-1])
    return torch.cat([r.expand(*batch, -1), h.expand(*batch, -1)], dim=-1)
