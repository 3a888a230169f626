"""Super-resolution: a diffusion of data given a smaller version of them."""

import pytest
import torch

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, priors
from pyro_lvm.diffusion import DDIM, Downscaled, ForwardProcess, Label, LinearLogSNR, Reverse, SmallVariance, Velocity

LEVELS = 3


def made(steps: int = 20, width: int = 16) -> tuple[models.SuperResolution, guides.SubsampledDiffusion]:
    schedule = LinearLogSNR(5.0, -5.0)
    process = ForwardProcess((4, 4), schedule, steps, centre=1.0)
    net = networks.TimeMLP((4, 4), hidden_features=width, blocks=1, condition_shape=(2, 2))
    reverse = Reverse(net, (4, 4), schedule, Velocity(), SmallVariance())
    condition = Downscaled(networks.Downscale((4, 4), 2), priors.MixtureOfLevels((2, 2), LEVELS, 5), centre=1.0)
    diffusion = models.Diffusion(process, reverse, likelihoods.NoisedLevels(process, LEVELS), condition)
    return models.SuperResolution(diffusion), guides.SubsampledDiffusion(process)


def blocks(n: int) -> torch.Tensor:
    """Pictures of four squares of one level each: they are known from their small versions."""
    y = torch.randint(LEVELS, (n, 2, 2)).double()
    return y.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_small_pictures_have_a_probability() -> None:
    prior = priors.MixtureOfLevels((2, 1), LEVELS, 4)
    prior.start_from(torch.rand(4, 2, 1) * 2)
    y = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).unsqueeze(-1)
    p = prior().log_prob(y).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    draws = prior().sample((20_000,))
    shares = torch.stack([(draws == value).flatten(1).all(-1).double().mean() for value in y])
    assert bool(((shares - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all())  # of all nine


def test_the_bound_is_that_of_x_given_y_and_the_evidence_of_y() -> None:
    model, guide = made()
    x = torch.randint(LEVELS, (7, 4, 4)).double()
    objective = objectives.ELBO(5, analytic_kl=True)
    tables = []
    for program in (model, model.diffusion):
        torch.manual_seed(3)
        tables.append(objective.table(program, guide, x))
    whole, given = (table.bound().reshape(5, 7) for table in tables)
    y = model.condition.downscale(x)
    torch.testing.assert_close(whole, given + model.condition.coarse().log_prob(y), rtol=0, atol=1e-10)


@pytest.mark.slow
def test_it_learns_to_enlarge() -> None:
    torch.manual_seed(2)
    model, guide = made(width=64)
    x = blocks(256)
    lvm.fit(
        model,
        guide,
        x,
        objective=objectives.ELBO(analytic_kl=True),
        epochs=60,
        batch_size=64,
        learning_rate=1e-2,
        scheduler="CosineAnnealingLR",
    )
    y = model.condition.downscale(blocks(100))
    for sampler in (None, DDIM(10)):
        draws = model.super_resolve(y, sampler)
        data.check_levels(draws, LEVELS, "draws")
        assert (model.condition.downscale(draws) == y).double().mean() > 0.9  # a third by chance
    draws = model.sample(50)
    assert draws.shape == (50, 4, 4)
    squares = draws.unfold(1, 2, 2).unfold(2, 2, 2).flatten(-2)
    assert (squares == squares[..., :1]).double().mean() > 0.8


def test_wrong_arguments_are_refused() -> None:
    model, _ = made()
    diffusion = model.diffusion
    label = Label((4, 4), 3)
    with pytest.raises(ValueError, match="'diffusion' must be conditioned on a Downscaled"):
        models.SuperResolution(models.Diffusion(diffusion.process, diffusion.reverse, diffusion.decoder, label))
    with pytest.raises(ValueError, match=r"'y' must have shape \(n, 2, 2\), not \(3, 4\)"):
        model.super_resolve(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="'spread' is the data's and must be positive, not 0"):
        Downscaled(model.condition.downscale, model.condition.coarse, spread=0)
    with pytest.raises(ValueError, match=r"'levels' is the number of values .* at least 2, not 1"):
        priors.MixtureOfLevels(3, levels=1)
    with pytest.raises(ValueError, match="'y' must hold one array for each component"):
        priors.MixtureOfLevels(3, levels=4, components=2).start_from(torch.zeros(3, 3))
