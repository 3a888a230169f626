"""A normalising flow as a prior."""

from collections.abc import Sequence
from typing import Any, final

import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pyro_lvm.priors.prior import Prior
from pyro_lvm.sizes import check_sizes


@final
class Flow(Prior):
    r"""$p(z) = \mathcal N(f(z) \mid 0, I_M)\, |\det \partial f / \partial z|$ with an invertible network f.

    - "real_nvp": affine coupling layers. Each maps one half of z by numbers that a network reads from the other half,
      and this by constants; the halves take turns.
    - "neural_spline": the same with monotone rational-quadratic splines on [−5, 5] in place of affine maps, identity
      outside: keep the latents in there.
    - "masked_autoregressive": affine, $z_m$ by numbers read from all before it; the order turns around from layer to
      layer. The most general affine one, but a draw takes M passes through each layer, where the others take two.

    For M = 1 there is nothing to read from: layers are constant maps, the affine flows are normals, and only the spline
    bends.

    Args:
        latent_dim: M.
        flow: "real_nvp", "neural_spline" or "masked_autoregressive".
        transforms: number of layers.
        hidden_features: widths of each layer's network.

    Shapes:
        () to a distribution with event shape (M,).

    Raises:
        ValueError: for an unknown flow, or a size less than 1.

    References:
        Dinh, Sohl-Dickstein & Bengio (2017), Density Estimation Using Real NVP. Durkan et al. (2019), Neural Spline
        Flows. Papamakarios, Pavlakou & Murray (2017), Masked Autoregressive Flow for Density Estimation.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> prior = Flow(2, "neural_spline")
        >>> prior.log_prob(prior.sample((7,))).shape
        torch.Size([7])
    """

    location: Tensor

    def __init__(
        self,
        latent_dim: int,
        flow: str = "real_nvp",
        transforms: int = 4,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        check_sizes(latent_dim=latent_dim, transforms=transforms, hidden_features=min(hidden_features, default=1))
        self.register_buffer("location", torch.zeros(latent_dim))
        self.transform = _transform(latent_dim, flow, transforms, tuple(hidden_features))
        if latent_dim == 1:  # plain numbers, which would start a flow far from the standard normal
            for parameter in self.transform.parameters():
                nn.init.zeros_(parameter)

    def forward(self) -> TorchDistribution:
        """The distribution of z, event shape (M,)."""
        base = Normal(self.location, torch.ones_like(self.location)).to_event(1)
        return _Flowing(self.transform(), base)


def _transform(features: int, flow: str, transforms: int, hidden_features: tuple[int, ...]) -> nn.Module:
    from pyro_lvm.transforms.zuko_transforms import MAF, NSF

    # Coupling layers as autoregressive ones of two passes: zuko's own look up their halves anew at every call, which
    # PyTorch's compiler cannot follow.
    makers: dict[str, tuple[Any, dict[str, int]]] = {
        "real_nvp": (MAF, {"passes": 2}),
        "neural_spline": (NSF, {"passes": 2}),
        "masked_autoregressive": (MAF, {}),
    }
    if flow not in makers:
        raise ValueError(f"'flow' must be one of {', '.join(map(repr, makers))}, not {flow!r}.")
    maker, settings = makers[flow]
    transform: nn.Module = maker(features, transforms=transforms, hidden_features=hidden_features, **settings).transform
    return transform


@final
class _Flowing(TorchDistribution):
    """The density of z whose image f(z) has the base's."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        transform: Any,
        base: TorchDistribution,
        validate_args: bool | None = None,
    ) -> None:
        self.transform, self.base = transform, base
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Flowing":
        return _Flowing(self.transform, self.base.expand(Size(batch_shape)), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        noise, log_det = self.transform.call_and_ladj(value)
        log_prob: Tensor = self.base.log_prob(noise) + log_det
        return log_prob

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        z: Tensor = self.transform.inv(self.base.rsample(sample_shape))
        return z
