"""Verdicts: each on pairs for which the answer is known."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm import diagnostics, evidence, guides, models, zoo
from pyro_lvm.data import load
from pyro_lvm.report import Diagnosis, Verdict, diagnose


def answers(found: Diagnosis) -> dict[str, str]:
    return {verdict.question: verdict.answer for verdict in found.verdicts}


def verdict(found: Diagnosis, question: str) -> Verdict:
    return next(v for v in found.verdicts if v.question == question)


@pytest.fixture(scope="module")
def model() -> models.ProbabilisticPCA:
    torch.manual_seed(0)
    with torch.no_grad():
        made = models.ProbabilisticPCA(6, latent_dim=3, noise_scale=0.5).double()
        made.weight.copy_(torch.randn(6, 3, dtype=torch.float64))
    return made


def test_an_exact_pair_is_as_one_hopes(model: Any) -> None:
    found = diagnose(model, guides.ExactPPCA(model), model.sample(500), model.sample(500))
    assert answers(found) == {
        "Collapsed?": "no",
        "Holes in the prior?": "no",
        "Is the log-likelihood to be trusted?": "yes",
        "Overfitted?": "no",
        "Calibrated?": "yes",
    }
    assert all(verdict.is_good for verdict in found.verdicts)


def test_a_dead_unit_and_a_dead_level(model: Any) -> None:
    x = model.sample(300)
    dead = models.ProbabilisticPCA(6, latent_dim=3, noise_scale=0.5).double()
    with torch.no_grad():
        dead.weight.copy_(model.weight)
        dead.weight[:, 1] = 0.0
    found = diagnose(dead, guides.ExactPPCA(dead), x, dead.sample(300))
    assert verdict(found, "Collapsed?").answer == "partly"
    assert "2 of 3 units" in verdict(found, "Collapsed?").detail
    with torch.no_grad():
        dead.weight.zero_()
    assert answers(diagnose(dead, guides.ExactPPCA(dead), x, dead.sample(300)))["Collapsed?"] == "yes"


class Narrow(nn.Module):
    """The exact posterior with half its scale."""

    def __init__(self, model: models.ProbabilisticPCA) -> None:
        super().__init__()
        self.exact = guides.ExactPPCA(model)

    def forward(self, x: Tensor, *, size: int | None = None) -> Tensor:
        with pyro.poutine.block():
            q = pyro.poutine.trace(self.exact).get_trace(x).nodes["z"]["fn"]
        with pyro.plate("data", len(x) if size is None else size, subsample=torch.arange(len(x)), dim=-1):
            return pyro.sample("z", dist.MultivariateNormal(q.mean, scale_tril=q.scale_tril / 2))


def test_a_guide_that_is_too_sure_is_told(model: Any) -> None:
    found = diagnose(model, Narrow(model), model.sample(400), model.sample(400))
    assert answers(found)["Calibrated?"] == "no"
    # Weights of draws from half the scale have a tail: k-hats are known to be high.
    assert answers(found)["Is the log-likelihood to be trusted?"] in ("partly", "no")


def test_data_learned_by_heart_are_told(model: Any) -> None:
    """The bound of data near the mean of p(x) beside that of data far out: what a model does that knows the former."""
    guide = guides.ExactPPCA(model)
    near, far = 0.1 * model.sample(300), 2.0 * model.sample(300)
    found = verdict(diagnose(model, guide, near, far), "Overfitted?")
    assert found.answer == "yes"
    own, other = (evidence.lower_bound(model, guide, x, 1000, seed=1) for x in (near, far))
    # Ten draws a datum stand for a bound on the page, and a thousand here.
    error = 10 * (float(own.mean_standard_error) ** 2 + float(other.mean_standard_error) ** 2) ** 0.5
    assert found.number.value == pytest.approx(float(own.mean - other.mean), abs=4 * error)


def test_a_prior_with_a_hole_is_told() -> None:
    """Data are encoded to one side of the prior only."""

    def program(x: Tensor | None = None, *, size: int | None = None) -> Tensor:
        n = size if x is None else len(x)
        with pyro.plate("data", n, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 0.1).to_event(1), obs=x)

    def guide(x: Tensor, *, size: int | None = None) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", dist.Normal(x, 0.1).to_event(1))

    x = torch.randn(500, 2)
    x[:, 0] = x[:, 0].abs()
    found = verdict(diagnose(program, guide, x, x), "Holes in the prior?")
    assert found.answer == "yes"
    assert 0.2 < found.number.value < 0.55  # half of the prior, as far as the edges tell


def test_what_is_not_defined_is_unknown_with_a_reason() -> None:
    torch.set_default_dtype(torch.float32)
    try:
        model, guide, _ = zoo.build("d3pm", load("digits"), steps=5, width=8, blocks=1)
        found = diagnose(model, guide, load("digits").train[:20].float(), None)
    finally:
        torch.set_default_dtype(torch.float64)
    assert answers(found)["Is the log-likelihood to be trusted?"] == "unknown"
    assert answers(found)["Overfitted?"] == "unknown"
    for v in found.verdicts:
        if v.answer == "unknown":
            assert math.isnan(v.number.value)
            assert len(v.number.meaning) > 15
            assert v.is_good is None


def test_the_callers_state_is_left_alone(model: Any) -> None:
    x, before = model.sample(40), torch.get_rng_state()
    one, other = (diagnose(model, guides.ExactPPCA(model), x, None, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [v.number.text for v in one.verdicts] == [v.number.text for v in other.verdicts]
    assert list(pyro.get_param_store().keys()) == []
    assert isinstance(one.calibration, diagnostics.Calibration)
