"""Scores of data of another kind, where their values are known."""

from typing import Any

import diagnosed_pairs as pairs
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import data, evidence, exact, guides, models, zoo
from pyro_lvm.diagnostics import complexity, likelihood_regret, out_of_distribution, plot_out_of_distribution


def phi(z: float) -> float:
    return float(dist.Normal(0.0, 1.0).cdf(torch.tensor(z)))


def line_model(x: Tensor) -> None:
    """x ~ N(0, 1), all told."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 0.6))
        pyro.sample("x", dist.Normal(z, 0.8), obs=x)


def line_guide(x: Tensor) -> None:
    """The exact posterior of x > 0; below, the encoder is off by 2 of its widths."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.36 * x - torch.where(x < 0, 2 * 0.48, 0.0), 0.48))


def exact_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.36 * x, 0.48))


def test_likelihood_of_two_normals() -> None:
    """Data N(0, 1) and N(3, 0.1²): −log p(x) = x² / 2 + c, higher outside wherever |x| is lower than about 3."""
    x_in, x_out = torch.randn(600), 3 + 0.1 * torch.randn(300)
    found = out_of_distribution(line_model, exact_guide, x_in, x_out, num_particles=5, steps=1, seed=0)
    score = found.scores["likelihood"]
    expected = 2 * phi(3 / (1 + 0.01) ** 0.5) - 1
    assert score.auroc.value == pytest.approx(expected, abs=4 * max(score.auroc.standard_error, 1 / 600))
    # The failure: data N(0, 0.1²) are likelier than the model's own. |x_out| < |x_in| is 1 − (2/π) atan(0.1) of all.
    tight = 0.1 * torch.randn(300)
    failed = out_of_distribution(line_model, exact_guide, x_in, tight, num_particles=5, steps=1, seed=0)
    auroc = failed.scores["likelihood"].auroc
    expected = 2 / torch.pi * float(torch.atan(torch.tensor(0.1)))
    assert auroc.value == pytest.approx(expected, abs=4 * auroc.standard_error)


def test_regret_is_the_divergence_of_encoder_from_posterior() -> None:
    x = torch.cat([torch.rand(30) + 0.1, -torch.rand(30) - 0.1])
    regret = likelihood_regret(line_model, line_guide, x, steps=100, num_particles=400, seed=0)
    kl = torch.where(x < 0, 2.0, 0.0)  # two widths off: 2² / 2
    assert regret.values[:30].abs().max() < 0.01
    assert ((regret.values - kl).abs() < 5 * regret.standard_error + 0.01).all()


def test_regret_tells_what_the_encoder_has_not_seen() -> None:
    found = out_of_distribution(line_model, line_guide, torch.rand(40), -torch.rand(40), steps=100, seed=0)
    assert found.scores["likelihood regret"].auroc.value == 1.0
    assert abs(found.scores["likelihood"].auroc.value - 0.5) < 0.3


def test_batches_of_regret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.diagnostics.regret._BYTES", 20_000)
    regret = likelihood_regret(line_model, line_guide, -torch.rand(6), steps=80, num_particles=50, seed=0)
    assert ((regret.values - 2).abs() < 5 * regret.standard_error + 0.02).all()


def test_lengths() -> None:
    noise = torch.randint(256, (1, 40, 40))
    ramp = (torch.arange(40)[:, None] + 2 * torch.arange(40)).expand(1, 40, 40) % 256
    bits = torch.randint(2, (1, 100, 100))
    nats = 8 * torch.tensor(2.0).log()
    assert complexity(noise).item() >= 1600 * nats  # nobody compresses noise
    assert complexity(noise).item() < 1620 * nats
    assert complexity(ramp).item() < 60 * nats  # constant after a filter
    assert complexity(ramp.flatten(1)).item() > 2 * complexity(ramp).item()  # a vector has no neighbours above
    assert 1250 * nats <= complexity(bits).item() < 1270 * nats  # 8 to a byte
    assert complexity(torch.zeros(3, 5)).shape == (3,)
    for wrong in (torch.tensor([[0.5]]), torch.tensor([[256]]), torch.tensor([[-1]]), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="whole numbers"):
            complexity(wrong)


def test_complexity_is_subtracted() -> None:
    model, guide = pairs.vae()
    x_in, x_out = torch.randint(3, (30, 4, 4)).double(), torch.ones(20, 4, 4)
    found = out_of_distribution(model, guide, x_in, x_out, num_particles=20, steps=5, seed=0)
    assert list(found.scores) == ["likelihood", "likelihood regret", "complexity-corrected"]
    assert not found.undefined
    plain, corrected = found.scores["likelihood"], found.scores["complexity-corrected"]
    torch.testing.assert_close(plain.inside - corrected.inside, complexity(x_in))
    torch.testing.assert_close(
        plain.outside, -evidence.log_likelihood(model, guide, x_out, 20, seed=0).as_subclass(Tensor)
    )


@pytest.mark.parametrize(
    ("name", "scores", "undefined"),
    [
        ("ddpm", ["bound", "complexity-corrected"], "likelihood regret"),
        ("vae-diffusion-prior", ["bound", "complexity-corrected"], "likelihood regret"),
        ("hvae-top-down", ["likelihood", "complexity-corrected"], "hangs on the draw"),
        ("vae-discrete", ["likelihood", "complexity-corrected"], "discrete"),
        ("gmm-bayes", ["likelihood"], "all data share"),
    ],
)
def test_what_is_not_defined_is_said(name: str, scores: list[str], undefined: str) -> None:
    digits = data.load("digits")
    model, guide, _ = zoo.build(name, digits)
    found = out_of_distribution(model, guide, digits.test[:4], 16 - digits.test[:4], num_particles=3, seed=0)
    assert list(found.scores) == scores
    assert undefined in repr(found)


def test_exact_pair() -> None:
    model = models.ProbabilisticPCA(4, latent_dim=2)
    x = model.sample(60)
    found = out_of_distribution(model, guides.ExactPPCA(model), x[:30], 2 * x[30:], num_particles=10, steps=20, seed=0)
    truth = exact.log_evidence(x[:30], model.weight, model.bias, model.noise_scale.square())
    torch.testing.assert_close(found.scores["likelihood"].inside, -truth.detach())
    assert found.scores["likelihood regret"].inside.abs().max() < 1e-6
    assert "density" in found.undefined["complexity-corrected"]


def test_state_arguments_and_plot() -> None:
    x = torch.rand(12)
    before = torch.get_rng_state()
    found = out_of_distribution(line_model, line_guide, x, -x, num_particles=10, steps=5, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert not pyro.get_param_store().keys()
    ax = plot_out_of_distribution(found, "likelihood regret")
    assert ax.get_xlabel() == "likelihood regret (nats)"
    assert [patch.get_xy()[1:-1:2, 1].sum() for patch in ax.patches] == pytest.approx([1.0, 1.0])  # shares of each kind
    with pytest.raises(ValueError, match="'score' must be one of 'likelihood'"):
        plot_out_of_distribution(found, "complexity-corrected")
    wrong: list[tuple[Any, str]] = [((x, x[:1]), "'x_out'"), ((x[:1], x), "'x_in'"), ((x, torch.rand(3, 2)), "'x_out'")]
    for arguments, match in wrong:
        with pytest.raises(ValueError, match=match):
            out_of_distribution(line_model, line_guide, *arguments)
    for name in ("steps", "num_particles", "draws_per_step", "learning_rate"):
        with pytest.raises(ValueError, match=f"'{name}'"):
            likelihood_regret(line_model, line_guide, x, **{name: 0})
