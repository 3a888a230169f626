"""Divergences in closed form that PyTorch and Pyro do not register."""

from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl


@register_kl(MultivariateNormal, Independent)
def _kl_full_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    r"""KL of a full normal from a diagonal one.

    $\tfrac12 \sum_d [((LL^\top)_{dd} + (m_d - \mu_d)^2) / \sigma_d^2 - 1 + 2 \log \sigma_d] - \sum_d \log L_{dd}$.
    """
    if p.reinterpreted_batch_ndims != 1 or not isinstance(p.base_dist, Normal):
        raise NotImplementedError
    base = p.base_dist
    scale_tril = q._unbroadcasted_scale_tril  # one factor where all data share it: q.scale_tril would copy it for each
    variance = scale_tril.square().sum(-1)
    squares = (variance + (q.loc - base.mean).square()) / base.variance
    log_det = scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squares - 1).sum(-1) + base.scale.log().sum(-1) - log_det
