"""What objectives refuse, each in one sentence that names the argument."""

from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from linear_gaussian import LooseGuide, ppca
from torch import Tensor, nn

from pyro_lvm import models, objectives
from pyro_lvm.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    Capacity,
    Cyclical,
    Linear,
    Renyi,
    ReweightedWakeSleep,
    Sigmoid,
    UncertaintyAutoencoder,
    WakeSleep,
)

INF, NAN = float("inf"), float("nan")


@pytest.fixture
def model() -> models.ProbabilisticPCA:
    return ppca(4, 2)


@pytest.fixture
def x(model: models.ProbabilisticPCA) -> Tensor:
    return model.sample(5)


# Settings


@pytest.mark.parametrize("K", [0, -2, 2.5, "3"])
@pytest.mark.parametrize(
    "make",
    [
        ELBO,
        IWAE,
        CIWAE,
        lambda K: MIWAE(K, 1),
        lambda K: PIWAE(K, 1),
        lambda K: Renyi(0.5, K),
        lambda K: CUBO(2.0, K),
        WakeSleep,
        ReweightedWakeSleep,
        UncertaintyAutoencoder,
        lambda K: Capacity(1.0, num_particles=K),
    ],
)
def test_particles_below_one_are_refused(make: Any, K: Any) -> None:
    with pytest.raises(ValueError, match="'num_particles' is a number of draws and must be at least 1, not"):
        make(K)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Renyi(1), r"'alpha' = 1 divides by 0: .* use objectives.ELBO"),
        (lambda: Renyi(1.0), r"'alpha' = 1 divides by 0"),
        (lambda: Renyi(INF), "'alpha' must be a finite number, not inf"),
        (lambda: Renyi(-INF), "'alpha' must be a finite number, not -inf"),
        (lambda: Renyi(NAN), "'alpha' must be a finite number, not nan"),
        (lambda: CUBO(1.0), r"'n' is the power of the weights and must be above 1, not 1.0; for n = 1 use IWAE"),
        (lambda: CUBO(0.5), "'n' is the power .* not 0.5"),
        (lambda: CUBO(-2.0), "'n' is the power .* not -2.0"),
        (lambda: CUBO(INF), "'n' is the power .* not inf"),
        (lambda: CUBO(NAN), "'n' is the power .* not nan"),
        (lambda: CUBO(2.0, log_scale=INF), "'log_scale' must be a finite number of nats, not inf"),
        (lambda: CUBO(2.0, log_scale=NAN), "'log_scale' must be a finite number of nats, not nan"),
        (lambda: ELBO(beta=-0.1), "'beta' weighs the divergence and must be 0 or more, or a schedule, not -0.1"),
        (lambda: ELBO(beta=INF), "'beta' weighs the divergence .* not inf"),
        (lambda: ELBO(beta=NAN), "'beta' weighs the divergence .* not nan"),
        (lambda: ELBO(free_bits=-1.0), "'free_bits' are nats of divergence per group and must be 0 or more, not -1.0"),
        (lambda: ELBO(free_bits=INF), "'free_bits' are nats .* not inf"),
        (lambda: ELBO(free_bits=0.1, free_bits_per="site"), "'free_bits_per' must be 'dimension' or 'layer', not 'si"),
        (lambda: Capacity(-0.5), "'kl' is the most divergence a datum, in nats, and must be 0 or more, not -0.5"),
        (lambda: Capacity(NAN), "'kl' is the most divergence .* not nan"),
        (lambda: Capacity(reconstruction=NAN), "'reconstruction' is the most error a datum.* not nan"),
        (lambda: UncertaintyAutoencoder(entropy=NAN), "'entropy' is the data's.* not nan"),
        (lambda: Capacity(), "Capacity keeps one constraint: give 'kl', .* or 'reconstruction'"),
        (lambda: Capacity(1.0, reconstruction=2.0), "Capacity keeps one constraint"),
        (lambda: Capacity(1.0, rate=0.0), "'rate' must be positive, not 0.0"),
        (lambda: Capacity(1.0, decay=1.0), r"'decay' must lie in \[0, 1\), not 1.0"),
        (lambda: Capacity(1.0, decay=-0.1), r"'decay' must lie in \[0, 1\), not -0.1"),
        (lambda: CIWAE(5, -0.1), "'beta' is the share of the ELBO and must lie between 0 and 1, not -0.1"),
        (lambda: CIWAE(5, 1.1), "'beta' is the share of the ELBO .* not 1.1"),
        (lambda: CIWAE(5, NAN), "'beta' is the share of the ELBO .* not nan"),
        (lambda: MIWAE(6, 4), "'groups' must divide the 6 particles into equal parts, but is 4"),
        (lambda: MIWAE(6, 0), "'groups' must divide the 6 particles into equal parts, but is 0"),
        (lambda: MIWAE(6, 12), "'groups' must divide the 6 particles .* is 12"),
        (lambda: MIWAE(6, 2.0), "'groups' must divide the 6 particles .* is 2.0"),  # type: ignore[arg-type]
        (lambda: PIWAE(6, 4), "'groups' must divide the 6 particles into equal parts, but is 4"),
        (lambda: IWAE(5, gradient="path"), "'gradient' must be 'standard', 'stl' or 'dreg', not 'path'"),  # type: ignore[arg-type]
        (lambda: ReweightedWakeSleep(5, "dream"), "'phi' must be 'wake', 'sleep' or 'both', not 'dream'"),  # type: ignore[arg-type]
        (lambda: Linear(-1.0, 1.0, 5), "'start' is a weight and must be 0 or more, not -1.0"),
        (lambda: Linear(0.0, -1.0, 5), "'end' is a weight and must be 0 or more, not -1.0"),
        (lambda: Linear(0.0, NAN, 5), "'end' is a weight .* not nan"),
        (lambda: Linear(0.0, 1.0, 0), "'epochs' is the time the schedule takes and must be positive, not 0"),
        (lambda: Sigmoid(0.0, 1.0, -3), "'epochs' is the time .* not -3"),
        (lambda: Sigmoid(0.0, 1.0, 5, steepness=0.0), "'steepness' must be positive, not 0.0"),
        (lambda: Cyclical(0.0, 1.0, 5, cycles=0), "'cycles' must be at least 1, not 0"),
        (lambda: Cyclical(0.0, 1.0, 5, ramp=0.0), r"'ramp' is a share of a cycle and must lie in \(0, 1\], not 0.0"),
        (lambda: Cyclical(0.0, 1.0, 5, ramp=1.5), r"'ramp' is a share of a cycle .* not 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        make()
    assert "\n" not in str(error.value)


# Programs


class Code(nn.Module):
    """z ~ Bernoulli, with a guide to match."""

    def __init__(self, baseline: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.3, -0.8, 1.2]))
        self.infer = {} if baseline is None else {"baseline": baseline}

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(2 * z - 1, 1.0), obs=x)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(logits=self.logits), infer=self.infer)


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
def test_gradients_through_draws_need_draws_that_are_reparameterised(gradient: Any) -> None:
    code, y = Code(), torch.zeros(3)
    match = f"IWAE's gradient '{gradient}' .* but 'z' is not reparameterised: use gradient='standard'"
    with pytest.raises(ValueError, match=match):
        IWAE(4, gradient=gradient).loss_and_grads(code.model, code, y)
    with pytest.raises(ValueError, match=match):
        IWAE(4, gradient=gradient).loss(code.model, code, y)


def spiky(scale: float) -> tuple[Any, Any]:
    """A guide that is `scale` wide where the posterior is about 0.7."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, scale))

    return model, guide


def test_cubo_says_that_a_weight_s_power_overflows() -> None:
    # without a scale all is done in logarithms, and only n · log w itself can leave the numbers
    model, guide = spiky(0.7)
    with pytest.raises(FloatingPointError, match=r"CUBO's weights overflow: n · log w reaches inf nats"):
        CUBO(2.0, 4).per_datum(torch.tensor([[0.0], [INF]]))
    assert torch.isfinite(CUBO(2.0, 4).per_datum(torch.tensor([[-1e5], [1e5]]))).all()
    with pytest.raises(
        FloatingPointError, match=r"exp\(n \(log w − c\)\) overflows: .* 'log_scale' is -1000. Set 'log_scale' near"
    ):
        CUBO(2.0, 4, log_scale=-1000.0).loss_and_grads(model, guide, torch.zeros(3))
    assert CUBO(2.0, 4).loss_and_grads(model, guide, torch.zeros(3)) < 10


def test_cubo_refuses_what_data_share() -> None:
    def model(x: Tensor) -> None:
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(beta, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("beta", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    for K in (1, 4):
        with pytest.raises(ValueError, match=r"CUBO is an upper bound datum by datum, but all data share .* 'beta'"):
            CUBO(2.0, K).loss(model, guide, torch.zeros(3))
        with pytest.raises(ValueError, match=r"ReweightedWakeSleep weighs a datum's draws, but all .* 'beta'"):
            ReweightedWakeSleep(K).loss(model, guide, torch.zeros(3))


@pytest.mark.parametrize(
    "objective",
    [IWAE(4), CIWAE(4), MIWAE(4, 2), PIWAE(4, 2), Renyi(0.5, 4), CUBO(2.0, 4), ReweightedWakeSleep(4), IWAE(1)],
)
def test_bounds_of_weights_refuse_programs_whose_latents_are_all_shared(objective: Any) -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    for call in (objective.loss, objective.loss_and_grads):
        with pytest.raises(ValueError, match=r"all data share the latent 'mean'"):
            call(model, guide, torch.zeros(3))


@pytest.mark.parametrize(
    "objective",
    [IWAE(4), CIWAE(4), MIWAE(4, 2), PIWAE(4, 2), Renyi(0.5, 4), CUBO(2.0, 4), ReweightedWakeSleep(4)],
)
def test_scales_that_differ_are_refused(objective: Any, model: Any, x: Tensor) -> None:
    programs = poutine.scale(model, 2.0), LooseGuide(model)
    name = type(objective).__name__
    for call in (objective.loss, objective.loss_and_grads):
        with pytest.raises(ValueError, match=rf"{name} takes .* must share one, but they have: 'z' 2, 1; 'x' 2"):
            call(*programs, x)


def test_free_bits_by_dimension_need_densities_that_factorise(model: Any, x: Tensor) -> None:
    match = r"free bits per dimension need a posterior and a prior of 'z' .*use free_bits_per='layer'"
    for analytic_kl in (False, True):
        with pytest.raises(ValueError, match=match):
            ELBO(free_bits=0.1, analytic_kl=analytic_kl).loss(model, LooseGuide(model), x)
        assert ELBO(free_bits=0.1, free_bits_per="layer", analytic_kl=analytic_kl).loss(model, LooseGuide(model), x) > 0
    assert ELBO(free_bits=0.0).loss(model, LooseGuide(model), x) > 0


@pytest.mark.parametrize("objective", [WakeSleep(), ReweightedWakeSleep(3, "sleep"), ReweightedWakeSleep(3, "both")])
def test_sleep_needs_data_that_are_an_argument(objective: Any, model: Any, x: Tensor) -> None:
    def closed_over(unused: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ model.weight.T, 1.0).to_event(1), obs=x)

    guide = LooseGuide(model)
    with pytest.raises(ValueError, match=r"the sleep phase puts dreams in the place of data.* `obs=x`, or learn awake"):
        objective.loss_and_grads(closed_over, lambda unused: guide(x), x.clone())

    def changed(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ model.weight.T, 1.0).to_event(1), obs=2 * y)

    with pytest.raises(ValueError, match="the sleep phase"):
        objective.loss_and_grads(changed, guide, x)
    assert ReweightedWakeSleep(3).loss_and_grads(changed, guide, x) > 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"decaying": True}, r"the baseline of 'z' has no option 'decaying'"),
        (
            {"nn_baseline": nn.Linear(1, 1), "nn_baseline_input": torch.zeros(3, 1), "baseline_value": torch.zeros(3)},
            "has both 'nn_baseline' and 'baseline_value': give one",
        ),
        ({"baseline_value": torch.zeros(7)}, r"has shape \(7,\), but the reward has \(1, 3\)"),
    ],
)
def test_baselines_that_are_none_are_refused(options: dict[str, Any], match: str) -> None:
    code = Code(options)
    with pytest.raises(ValueError, match=match):
        ELBO().loss_and_grads(code.model, code, torch.zeros(3))


def test_an_objective_reads_a_table_not_a_trace(model: Any, x: Tensor) -> None:
    with pytest.raises(NotImplementedError, match="objectives read a table, not a trace"):
        ELBO()._get_trace(model, LooseGuide(model), (x,), {})
    with pytest.raises(TypeError, match="abstract"):
        objectives.Objective()  # type: ignore[abstract]
