"""The posterior by Hamiltonian Monte Carlo: what approximations are held against."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, final

import pyro
import pyro.poutine as poutine
import torch
from pyro.distributions.constraints import sphere
from pyro.distributions.util import scale_and_mask
from pyro.infer.mcmc import MCMC, NUTS
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import biject_to

from pyro_lvm.diagnostics.conversion import Group, arviz_object, observed_group, posterior_groups, prior_groups
from pyro_lvm.diagnostics.drawing import Draws, Sampler, Variable, checked, undisturbed
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.objectives.table import run
from pyro_lvm.programs import Constant, Program
from pyro_lvm.progress import Advance, progress_bar

_LARGEST_RHAT = 1.01  # Vehtari et al. (2021)


def nuts(
    model: Callable[..., Any],
    x: Tensor,
    draws: int = 500,
    warmup: int = 500,
    chains: int = 4,
    *,
    seed: int | None = None,
    size: int | None = None,
    progress: bool = True,
) -> Any:
    r"""Draws from the posterior $p(z \mid x)$ itself, by the no-U-turn sampler: a gold standard for a few data.

    The model's parameters are held fixed. All latents are moved at once, $-\log p(x, z)$ their potential energy in
    unconstrained space (on a sphere, by direction of a vector whose length is that of a standard normal's). Latents of
    different data are independent given the parameters, and move side by side in one batch; their chain has a scale of
    its own for every dimension, and one step size, so that the datum with the narrowest posterior sets the pace. Each
    chain has its own warm-up, and starts from a draw of the prior.

    The result is laid out as `posterior` does, with other `sample_stats`: `diverging`, whether a
    trajectory diverged; `lp`, $\log p(x, z)$ of all data, nats; `n_steps`, gradients taken for the draw; `step_size`.
    The attributes of its group `posterior` say whether it can be trusted: `max_rhat`, `min_ess`, `divergences`, and
    the `warnings` that were given, in words.

    Args:
        model: the program; one that accepts only `x` is taken too.
        x: the data to condition on, (B, *data_shape); some tens at most, since a chain of all takes more and smaller
            steps the more there are.
        draws, warmup: number of draws kept in each chain, and of those before that find step size and scales.
        chains: number of chains, at least 2, for $\hat R$ to compare.
        seed: makes the result repeatable and leaves the caller's random state alone; with None, that is consumed.
        size: number of data in the whole set, where `x` is a part of it; the density sampled is that of `x` alone.
        progress: show a bar on a terminal.

    Returns:
        The ArviZ object.

    Warns:
        UserWarning: where an $\hat R$ is above 1.01 or a trajectory diverged: then it is no gold standard.

    Raises:
        ValueError: where `draws`, `warmup` or `chains` are too small; for latents that are discrete, or on a set to
            which PyTorch has no bijection; for models whose density is itself an estimate, as a diffusion's is; for
            priors that cannot be sampled.

    References:
        Hoffman & Gelman (2014), The No-U-Turn Sampler. Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021),
        Rank-Normalization, Folding, and Localization: An Improved R̂ for Assessing Convergence of MCMC.

    Example:
        >>> from pyro_lvm import models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=1)
        >>> gold = nuts(model, torch.zeros(2, 5), draws=200, warmup=50, chains=2, seed=0)
        >>> dict(gold["posterior"]["z"].sizes), gold["posterior"].attrs["divergences"]
        ({'chain': 2, 'draw': 200, 'datum': 2, 'z_dim': 1}, 0)
    """
    for name, number, least in (("draws", draws, 4), ("warmup", warmup, 1), ("chains", chains, 2)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"'{name}' must be a whole number, at least {least}, not {number!r}.")
    prior = _Prior(model)
    try:
        x = checked(model, prior, x)
        sampler = Sampler(model, prior, x, size=size)
    except ValueError as error:
        if isinstance(error.__cause__, NotImplementedError):
            raise ValueError(
                f"the model's prior cannot be sampled ({error.__cause__}), and chains start from it: give it a proper "
                "one."
            ) from error
        raise
    _check(sampler)
    with seeded(seed):
        sampled = _chains(sampler, draws, warmup, chains, progress)
        log_joint: list[Tensor] = []
        groups = posterior_groups(sampler, (chains, draws), _in_parts(sampler, sampled, log_joint))
        groups |= prior_groups(sampler, draws)
    groups["sample_stats"] = _statistics(sampled, log_joint, (chains, draws))
    groups["posterior"].attributes = _judged(groups["posterior"].dataset(), sampled.diverging)
    return arviz_object(groups | {"observed_data": observed_group(sampler)})


@final
class _Prior:
    """A model without its data, as a guide."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = Program(model)

    def __call__(self, x: Tensor, *, size: int | None = None) -> None:
        poutine.block(self.model, hide_fn=lambda site: site["type"] == "sample" and site["is_observed"])(x, size=size)


def _check(sampler: Sampler) -> None:
    for name in sampler.latents:
        if sampler.variables[name].is_discrete:
            raise ValueError(
                f"the latent '{name}' is discrete, and Hamiltonian Monte Carlo moves along gradients: sum it out in "
                "the model, or hold the guide against exact sums."
            )
    with torch.no_grad(), torch.random.fork_rng(), poutine.block():
        reason = run(sampler.model, sampler.guide, (sampler.x,), sampler.arguments).without_weights
    if reason is not None:
        raise ValueError(
            f"the model's density cannot be computed, only bounded, so its posterior cannot be sampled: {reason}."
        )


@final
class _Sampled:
    """What the chains gave, draw by draw, chain after chain."""

    def __init__(self) -> None:
        self.latents: list[dict[str, Tensor]] = []  # as the model draws them
        self.diverging: list[bool] = []
        self.n_steps: list[int] = []
        self.step_size: list[float] = []


def _chains(sampler: Sampler, draws: int, warmup: int, chains: int, progress: bool) -> _Sampled:
    sampled = _Sampled()
    with ExitStack() as stack:
        stack.enter_context(undisturbed(sampler.model, sampler.guide))
        stack.enter_context(Constant(sampler.model))
        # Trajectories that diverge, to be rejected, may meet parameters that Pyro would refuse.
        stack.enter_context(pyro.validation_enabled(False))
        advance = stack.enter_context(progress_bar("no-U-turn sampler", chains * (warmup + draws), progress))
        for _ in range(chains):
            _sample_chain(_Potential(sampler), sampled, draws, warmup, advance)
    return sampled


def _sample_chain(potential: "_Potential", sampled: _Sampled, draws: int, warmup: int, advance: Advance) -> None:
    first, calls = len(sampled.latents), 0

    def keep(kernel: NUTS, u: Mapping[str, Tensor], stage: str, i: int) -> None:
        nonlocal calls
        if stage.lower().startswith("sample"):
            sampled.latents.append(potential.latents(u))
            sampled.n_steps.append(potential.calls - calls)
            sampled.step_size.append(float(kernel.step_size))
        calls = potential.calls
        advance(1, "")

    with torch.enable_grad():
        kernel = NUTS(potential_fn=potential)
        mcmc = MCMC(kernel, draws, warmup, initial_params=potential.start, hook_fn=keep, disable_progbar=True)
        mcmc.run()
    diverged = set(mcmc.diagnostics()["divergences"]["chain 0"])
    sampled.diverging += [i in diverged for i in range(len(sampled.latents) - first)]


@final
class _Potential:
    r"""$-\log p(x, z(u))\,|\det \partial z / \partial u|$ of all data, of unconstrained latents u by site.

    Energies are sums over all data, and in double precision, as everything of the sampler's; the model is run in its
    own.

    Attributes:
        start: where a chain may start, drawn from the prior.
        calls: how often it was computed.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.calls = sampler, 0
        trace = poutine.trace(sampler.guide).get_trace(sampler.x, **sampler.arguments)
        nodes: dict[str, Any] = {name: trace.nodes[name] for name in sampler.latents}
        self.precision = {name: node["value"].dtype for name, node in nodes.items()}
        self.start = {name: _to_latent(name, node["fn"]).inv(node["value"]).double() for name, node in nodes.items()}

    def __call__(self, u: Mapping[str, Tensor]) -> Tensor:
        self.calls += 1
        return -self._run(u).log_density

    def latents(self, u: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The latents that u stands for."""
        with torch.no_grad():
            return self._run(u).values

    def _run(self, u: Mapping[str, Tensor]) -> "_Answers":
        with _Answers({name: value.to(self.precision[name]) for name, value in u.items()}) as answers:
            self.sampler.model(self.sampler.x, **self.sampler.arguments)
        return answers


@final
class _Answers(Messenger):
    """Answers the latents' statements from unconstrained values, and adds up the log-density of everything."""

    def __init__(self, u: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.u = u
        self.values: dict[str, Tensor] = {}
        self.log_density = torch.zeros((), dtype=torch.float64, device=next(iter(u.values())).device)

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["done"] or name not in self.u:
            return
        # Made anew at every statement: a latent's support may hang on the latents before it.
        transform, u = _to_latent(name, msg["fn"]), self.u[name]
        z = transform(u)
        self._add(transform.log_abs_det_jacobian(u, z))
        self.values[name] = z
        msg["value"], msg["done"] = z, True

    def _pyro_post_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            log_prob = msg["fn"].log_prob(msg["value"], *msg["args"], **msg["kwargs"])
            self._add(scale_and_mask(log_prob, mask=msg["mask"]))

    def _add(self, terms: Tensor) -> None:
        self.log_density = self.log_density + terms.double().sum()


@final
class _Direction:
    r"""$z = u / \|u\|$, with the length of u distributed as a standard normal's, whatever z.

    With $r = \|u\|$ the volume is $r^{M-1}\,dr$ times the sphere's area, and the length's density is
    proportional to $r^{M-1} e^{-r^2/2}$: what u has beyond z is $-r^2/2$, up to a constant.
    """

    def __call__(self, u: Tensor) -> Tensor:
        return u / u.norm(dim=-1, keepdim=True)

    def inv(self, z: Tensor) -> Tensor:
        return z * z.shape[-1] ** 0.5

    def log_abs_det_jacobian(self, u: Tensor, z: Tensor) -> Tensor:
        return -u.square().sum(-1) / 2


def _to_latent(name: str, distribution: Any) -> Any:
    """From the reals to the support of a latent's distribution."""
    support = distribution.support
    if support is sphere:
        return _Direction()
    try:
        return biject_to(support)
    except NotImplementedError:
        raise ValueError(
            f"the latent '{name}' has the support {support}, to which PyTorch knows no bijection: register one with "
            "torch.distributions.biject_to."
        ) from None


def _in_parts(sampler: Sampler, sampled: _Sampled, log_joint: list[Tensor]) -> Iterator[tuple[Draws, Draws]]:
    """The chains' latents with their table and data drawn anew, some draws at a time; notes log p(x, z) of each."""
    start = 0
    for K in sampler.chunks(len(sampled.latents)):
        part = sampled.latents[start : start + K]
        drawn, again = sampler.posterior(K, {name: torch.stack([one[name] for one in part]) for name in part[0]})
        assert drawn.table is not None
        terms = [site.log_p.double().flatten(1).sum(1).expand(K) for site in drawn.table.sites.values()]
        log_joint.append(torch.stack(terms).sum(0))
        yield drawn, again
        start += K


def _statistics(sampled: _Sampled, log_joint: list[Tensor], shape: tuple[int, int]) -> Group:
    group = Group({}, shape)
    for name, values in (
        ("diverging", torch.tensor(sampled.diverging)),
        ("lp", torch.cat(log_joint)),
        ("n_steps", torch.tensor(sampled.n_steps)),
        ("step_size", torch.tensor(sampled.step_size, dtype=torch.float64)),
    ):
        group.add(name, values, Variable(name, ()))
    return group


def _judged(draws: Any, diverging: list[bool]) -> dict[str, Any]:
    """What is to be thought of the draws, an `xarray.Dataset`; warns where it is not good."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces its own refactoring when imported
        import arviz  # here, since it takes two seconds to import

    rhat, ess = arviz.rhat(draws), arviz.ess(draws)
    worst = max(rhat.data_vars, key=lambda name: float(rhat[name].max()))
    largest, divergences = float(rhat[worst].max()), sum(diverging)
    told = []
    if not largest <= _LARGEST_RHAT:
        told.append(
            f"the chains disagree, with an R-hat of {largest:.3f} for '{worst}', above {_LARGEST_RHAT}: they have not "
            "reached the posterior, or are too short to tell; give more 'warmup' and 'draws'"
        )
    if divergences:
        told.append(
            f"{divergences} of {len(diverging)} trajectories diverged: parts of the posterior may be missing; give "
            "more 'warmup', or a model whose latents have more even scales"
        )
    for sentence in told:
        warnings.warn(sentence, stacklevel=3)
    return {
        "max_rhat": largest,
        "min_ess": min(float(values.min()) for values in ess.data_vars.values()),
        "divergences": divergences,
        "warnings": "; ".join(told),
    }
