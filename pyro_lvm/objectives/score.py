"""Score-function gradients for latents that cannot be reparameterised, and the baselines that calm them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.objectives.table import Site, Table

_OPTIONS = {"use_decaying_avg_baseline", "baseline_beta", "nn_baseline", "nn_baseline_input", "baseline_value"}


def leave_one_out(values: Tensor) -> Tensor:
    """The mean of the other particles' values, (K, ...): a baseline no particle has a part in; 0 for K = 1."""
    K = len(values)
    return (values.sum(0) - values) / (K - 1) if K > 1 else torch.zeros_like(values)


def score_surrogate(table: Table, sites: list[Site], reward: Tensor, state: dict[str, Tensor]) -> Tensor:
    r"""What to add to a bound $E_q[r]$ for $\sum_k (r_k - b_k)\, \nabla \log q(z_k)$ of the sites that need it.

    The baseline b is the other particles' mean reward, or what the guide's statement asks for in Pyro's own words,
    `infer={"baseline": {...}}`: `use_decaying_avg_baseline` with `baseline_beta`, `nn_baseline` with
    `nn_baseline_input`, or `baseline_value`. A network is fitted to the reward by least squares along the way.

    Args:
        sites: of the table.
        reward: (K, *common plates), scaled; how far its mean over K is what q is to raise.
        state: keeps the moving averages, by the name of the site.

    References:
        Williams (1992), Simple Statistical Gradient-Following Algorithms. Mnih & Gregor (2014), Neural Variational
        Inference and Learning in Belief Networks.
    """
    reward = reward.detach()
    surrogate = reward.new_zeros(())
    for site in sites:
        if not site.needs_score:
            continue
        baseline, loss = leave_one_out(reward), reward.new_zeros(())
        if site.baseline:
            baseline, loss = _asked_for(site, reward, state)
        log_q = table.per_datum(site.log_q)
        surrogate = surrogate + (log_q * (reward - baseline.detach())).mean(0).sum() - loss
    return surrogate


def without_each(log_w: Tensor, bound: Callable[[Tensor], Tensor]) -> Tensor:
    """VIMCO's baseline for every k: the bound with log w_k replaced by the mean of the others, (K, ...); 0 for K = 1.

    Args:
        log_w: (K, ...).
        bound: from log-weights (K, ...) to the bound (...).

    References:
        Mnih & Rezende (2016), Variational Inference for Monte Carlo Objectives.
    """
    K = len(log_w)
    if K == 1:
        return torch.zeros_like(log_w)
    log_w = log_w.detach()
    others = log_w.unsqueeze(1).expand(K, *log_w.shape).clone()  # (particle, left out, ...)
    itself = torch.arange(K, device=log_w.device)
    others[itself, itself] = 0.0
    others[itself, itself] = others.sum(0) / (K - 1)  # by sums, not differences: a weight of zero has log w = −∞
    return bound(others)


def _asked_for(site: Site, reward: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The baseline of a site that has options of its own, and the loss of its network."""
    options: Mapping[str, Any] = site.baseline
    unknown = set(options) - _OPTIONS
    if unknown:
        raise ValueError(f"the baseline of '{site.name}' has no option {sorted(unknown)[0]!r}: {sorted(_OPTIONS)}.")
    if "nn_baseline" in options and "baseline_value" in options:
        raise ValueError(f"the baseline of '{site.name}' has both 'nn_baseline' and 'baseline_value': give one.")
    baseline = torch.zeros_like(reward)
    if options.get("use_decaying_avg_baseline", False):
        name, beta = f"baseline of {site.name}", options.get("baseline_beta", 0.9)
        average = state.get(name, reward.new_zeros(()))
        baseline = baseline + average
        if torch.is_grad_enabled():  # a step of training, and not a look at the loss
            state[name] = beta * average + (1 - beta) * reward.mean()
    fitted = None
    if "nn_baseline" in options:
        fitted = options["nn_baseline"](options["nn_baseline_input"].detach())
    elif "baseline_value" in options:
        fitted = options["baseline_value"]
    if fitted is None:
        return baseline, reward.new_zeros(())
    if fitted.dim() == reward.dim() and fitted.shape[-1] == 1 != reward.shape[-1]:
        fitted = fitted.squeeze(-1)  # a network's single output
    try:
        baseline = baseline + fitted
    except RuntimeError:
        raise ValueError(
            f"the baseline of '{site.name}' has shape {tuple(fitted.shape)}, but the reward has {tuple(reward.shape)} "
            "(particles, *plates): give one number a datum."
        ) from None
    return baseline, (reward - baseline).square().mean(0).sum()
