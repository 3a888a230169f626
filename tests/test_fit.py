"""The engine: what it trains, what it leaves alone, and how it stops."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, objectives, posteriors, priors

D, M = 5, 2


def ppca(seed: int = 0) -> tuple[models.ProbabilisticPCA, guides.LinearNormal]:
    torch.manual_seed(seed)
    return models.ProbabilisticPCA(D, M), guides.LinearNormal(D, M)


def vae(seed: int = 0, likelihood: str = "bernoulli") -> tuple[models.VAE, guides.Amortized]:
    torch.manual_seed(seed)
    decoder: nn.Module = likelihoods.Bernoulli(networks.MLP(M, D, (8,)))
    if likelihood == "normal":
        decoder = likelihoods.Normal(networks.MLP(M, D, (8,)))
    model = models.VAE(priors.StandardNormal(M), decoder)
    return model, guides.Amortized(posteriors.DiagonalNormal(networks.MLP(D, 2 * M, (8,))))


def weights(*programs: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for program in programs for p in program.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(60, D, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def bits() -> Tensor:
    return (torch.rand(50, D, generator=torch.Generator().manual_seed(6)) < 0.4).double()


# Determinism and isolation


def test_the_seed_decides_and_the_callers_random_state_does_not(x: Tensor) -> None:
    first, second, other = ppca(), ppca(), ppca()
    lvm.fit(*first, x, epochs=3, batch_size=16, seed=1)
    torch.rand(17)
    lvm.fit(*second, x, epochs=3, batch_size=16, seed=1)
    lvm.fit(*other, x, epochs=3, batch_size=16, seed=2)
    assert same(weights(*first), weights(*second))
    assert not same(weights(*first), weights(*other))


def test_nothing_global_is_left_changed(x: Tensor) -> None:
    pyro.param("mine", torch.tensor(2.0))
    good, doomed = ppca(), ppca()
    torch.manual_seed(11)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    validation = torch.distributions.Distribution._validate_args, pyro.settings.get()
    threads = torch.get_num_threads()
    lvm.fit(*good, x, validation=x[:20], epochs=2, batch_size=16)
    with pytest.raises(FloatingPointError):
        lvm.fit(*doomed, 1e200 * x, epochs=2, batch_size=16, learning_rate=10.0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert (torch.distributions.Distribution._validate_args, pyro.settings.get()) == validation
    assert dict(pyro.get_param_store()).keys() == {"mine"}
    assert torch.get_default_dtype() == torch.float64
    assert torch.get_num_threads() == threads


def test_two_pairs_one_after_the_other_and_interleaved_train_as_alone(x: Tensor, bits: Tensor) -> None:
    alone_a, alone_b = ppca(), vae()
    lvm.fit(*alone_a, x, epochs=4, batch_size=16)
    expected_a = weights(*alone_a)
    pyro.clear_param_store()
    lvm.fit(*alone_b, bits, epochs=2, batch_size=16)
    expected_b = weights(*alone_b)

    a, b = ppca(), vae()
    lvm.fit(*a, x, epochs=4, batch_size=16)
    lvm.fit(*b, bits, epochs=2, batch_size=16)
    assert same(weights(*a), expected_a)
    assert same(weights(*b), expected_b)

    a, others = ppca(), []

    def train_another(row: dict[str, float]) -> None:
        other = vae()
        lvm.fit(*other, bits, epochs=2, batch_size=16)
        others.append(weights(*other))

    lvm.fit(*a, x, epochs=4, batch_size=16, on_epoch=train_another)
    assert same(weights(*a), expected_a)
    assert len(others) == 4
    assert all(same(other, expected_b) for other in others)


def test_a_pair_in_fit_and_another_in_stock_svi_do_not_touch(x: Tensor) -> None:
    """Both register their parameters as `model` and `guide`."""
    inner, outer = ppca(1), ppca(0)
    alone = ppca(0)
    lvm.fit(*alone, x, epochs=3, batch_size=60)
    with pyro.get_param_store().scope():
        svi = SVI(*inner, pyro.optim.Adam({"lr": 0.01}), loss=Trace_ELBO())
        lvm.fit(*outer, x, epochs=3, batch_size=60, on_epoch=lambda row: svi.step(x) < -math.inf)
        svi.step(x)
    assert same(weights(*outer), weights(*alone))
    assert not same(weights(*inner), weights(*ppca(1)))


# What it does


def test_first_step_is_adams_on_the_loss_per_datum(x: Tensor) -> None:
    """Against a hand-written step with the same draws."""
    model, guide = ppca()
    lvm.fit(model, guide, x, objective=objectives.ELBO(), epochs=1, batch_size=len(x), seed=4)
    by_hand_model, by_hand_guide = ppca()
    parameters = [*by_hand_model.parameters(), *by_hand_guide.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    torch.manual_seed(4)
    order = torch.randperm(len(x))
    (objectives.ELBO().differentiable_loss(by_hand_model, by_hand_guide, x[order]) / len(x)).backward()
    optimiser.step()
    for p, q in zip(weights(model, guide), parameters, strict=True):
        torch.testing.assert_close(p, q.detach())


@pytest.mark.parametrize("objective", [None, objectives.ELBO(3), objectives.IWAE(4), Trace_ELBO()])
def test_every_kind_of_objective_improves_its_bound(objective: Any, x: Tensor) -> None:
    result = lvm.fit(*ppca(), x, validation=x, objective=objective, epochs=30, batch_size=20, learning_rate=0.02)
    assert result.history[-1]["validation"] > result.history[0]["validation"]
    assert result.history[-1]["kl_z"] > 0
    assert [row["epoch"] for row in result.history] == list(range(1, 31))


def test_pyros_enumeration_trains_a_mixture() -> None:
    x = torch.cat([torch.randn(40, 2) - 3, torch.randn(40, 2) + 3])

    def empty(x: Tensor) -> None:
        pass

    for responsibilities in (True, False):
        torch.manual_seed(0)
        mixture = models.GaussianMixture(2, 2)
        guide = guides.Responsibilities(mixture) if responsibilities else empty
        objective = TraceEnum_ELBO(max_plate_nesting=1)
        result = lvm.fit(mixture, guide, x, validation=x, objective=objective, epochs=60, learning_rate=0.05)
        log_likelihood = mixture.log_joint(x).logsumexp(-1).mean().item()
        assert result.history[-1]["validation"] == pytest.approx(log_likelihood, rel=1e-9)
        assert log_likelihood > result.history[0]["validation"] + 0.5
        assert ("kl_z" in result.history.columns) == responsibilities


def test_history_has_rows_and_columns(x: Tensor) -> None:
    result = lvm.fit(*ppca(), x, validation=x[:30], epochs=2, batch_size=16)
    history = result.history
    assert history.columns == [
        "epoch",
        "train",
        "validation",
        "elbo",
        "reconstruction",
        "kl_z",
        "learning_rate",
        "seconds",
    ]
    assert history["train"] == [row["train"] for row in history]
    with pytest.raises(KeyError, match="no column 'loss'"):
        history["loss"]
    # the validation column is the objective on the validation data at the weights of the epoch
    model, guide = ppca()
    result = lvm.fit(model, guide, x, validation=x[:30], epochs=2, batch_size=16)
    draws = torch.tensor([-objectives.ELBO().loss(model, guide, x[:30]) / 30 for _ in range(200)])
    assert abs(result.history[-1]["validation"] - draws.mean()) < 5 * draws.std()


# Objectives that change as they train


def test_a_schedule_goes_on_with_training_and_validation_sees_its_end(x: Tensor) -> None:
    objective = objectives.ELBO(beta=objectives.Linear(0.0, 2.0, epochs=4))
    seen: list[float] = []
    model, guide = ppca()
    result = lvm.fit(
        model,
        guide,
        x,
        objective=objective,
        validation=x,
        epochs=6,
        batch_size=25,
        progress=False,
        on_epoch=lambda _: seen.append(objective.beta),
    )
    assert seen == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])  # the last step of an epoch is a smaller one
    for row in result.history:  # β = 2 throughout, whatever training had
        assert row["validation"] == pytest.approx(row["reconstruction"] - 2 * row["kl_z"], rel=1e-10)
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl_z"], rel=1e-10)


def test_the_first_step_of_a_schedule_has_its_first_weight(x: Tensor) -> None:
    """With β = 0 at the start the divergence has no part in the first step."""
    runs = []
    for objective in (objectives.ELBO(beta=objectives.Linear(0.0, 1.0, epochs=10)), objectives.ELBO(beta=0.0)):
        model, guide = ppca()
        lvm.fit(model, guide, x, objective=objective, epochs=1, batch_size=60, progress=False)
        runs.append(weights(model, guide))
    assert same(*runs)


@pytest.mark.parametrize(
    "objective", [objectives.ELBO(beta=objectives.Cyclical(0.0, 1.0, epochs=4)), objectives.Capacity(kl=0.5)]
)
def test_a_run_starts_with_a_fresh_objective(objective: Any, x: Tensor) -> None:
    runs = []
    for _ in range(2):
        model, guide = ppca()
        lvm.fit(model, guide, x, objective=objective, epochs=3, batch_size=20, progress=False)
        runs.append(weights(model, guide))
        assert objective.state_dict()
    assert same(*runs)


def test_an_upper_bound_is_told_as_one_and_its_lower_bound_stops_early(x: Tensor) -> None:
    model, guide = ppca()
    objective = objectives.CUBO(2, 50)
    result = lvm.fit(
        model,
        guide,
        x,
        objective=objective,
        validation=x,
        epochs=60,
        batch_size=30,
        learning_rate=0.02,
        early_stopping=50,
        progress=False,
    )
    last, upper = result.history[-1], objective.loss(model, guide, x) / len(x)
    assert upper > last["validation"] > last["elbo"]
    assert abs(last["train"] - upper) < abs(upper) / 10  # the same number but for the epoch's steps and other draws
    assert result.history[-1]["validation"] > result.history[0]["validation"]
    assert result.best_epoch == 1 + int(np.argmax(result.history["validation"]))


def test_discrete_data_are_told_in_bits_too(bits: Tensor) -> None:
    result = lvm.fit(*vae(), bits, validation=bits[:20], epochs=2, batch_size=16)
    row = result.history[-1]
    assert row["bits_per_dimension"] == pytest.approx(-row["validation"] / (D * math.log(2)))
    result = lvm.fit(*vae(), bits, epochs=1, batch_size=16)
    assert result.history[-1]["bits_per_dimension"] == pytest.approx(-result.history[-1]["train"] / (D * math.log(2)))


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train(precision: str, x: Tensor) -> None:
    model, guide = (program.float() for program in vae(likelihood="normal"))
    result = lvm.fit(model, guide, x, epochs=20, batch_size=20, learning_rate=0.01, precision=precision)
    assert result.history[-1]["train"] > result.history[0]["train"]
    assert torch.get_default_dtype() == torch.float64
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert all(p.dtype == expected for p in model.parameters())


def test_early_stopping_restores_the_best_weights(x: Tensor) -> None:
    seen: list[list[Tensor]] = []
    pair = ppca()
    train, held_out = x[:20], x[20:]
    result = lvm.fit(
        *pair,
        train,
        validation=held_out,
        epochs=400,
        batch_size=20,
        learning_rate=0.1,
        early_stopping=5,
        on_epoch=lambda row: seen.append(weights(*pair)),
    )
    validation = result.history["validation"]
    assert result.stopped_early
    assert result.best_epoch == 1 + int(np.argmax(validation)) == len(validation) - 5
    assert same(weights(*pair), seen[result.best_epoch - 1])
    assert not same(weights(*pair), seen[-1])


def test_scheduler_optimiser_and_clipping(x: Tensor) -> None:
    result = lvm.fit(*ppca(), x, epochs=4, batch_size=60, scheduler="StepLR", scheduler_options={"step_size": 1})
    assert result.history["learning_rate"] == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6])
    result = lvm.fit(*ppca(), x, epochs=3, batch_size=60, scheduler="CosineAnnealingLR")
    assert result.history["learning_rate"][0] == pytest.approx(1e-3)
    plateau = {"patience": 0, "threshold": 1e9}
    result = lvm.fit(*ppca(), x, epochs=4, batch_size=60, scheduler="ReduceLROnPlateau", scheduler_options=plateau)
    assert result.history["learning_rate"][-1] < 1e-3
    pair = ppca()
    before = weights(*pair)
    lvm.fit(*pair, x, epochs=1, batch_size=60, optimizer=torch.optim.SGD, learning_rate=1.0, gradient_clip=1e-3)
    moved = sum((p - q).square().sum() for p, q in zip(weights(*pair), before, strict=True)) ** 0.5
    assert float(moved) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam", "LBFGS", "Rprop"])
def test_any_optimiser_of_torch_trains(name: str, x: Tensor) -> None:
    result = lvm.fit(
        *ppca(),
        x,
        validation=x,
        epochs=15,
        batch_size=60,
        optimizer=name,
        learning_rate=0.02,
        objective=objectives.ELBO(20),
    )
    assert result.history[-1]["validation"] > result.history[0]["validation"]


def test_a_failed_factorisation_stops_the_run_in_one_sentence(x: Tensor) -> None:
    class Shrinking(nn.Module):
        """A posterior whose covariance is no longer one after some calls."""

        def __init__(self, after: int) -> None:
            super().__init__()
            self.loc, self.calls, self.after = nn.Parameter(torch.zeros(M)), 0, after

        def forward(self, x: Tensor) -> None:
            self.calls += 1
            with pyro.plate("data", len(x)):
                covariance = torch.eye(M) * (1.0 if self.calls < self.after else -1.0)
                pyro.sample("z", dist.MultivariateNormal(self.loc.expand(len(x), M), covariance))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(M), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(-1, D), 1.0).to_event(1), obs=x)

    for after in (20, 21, 22, 23):  # in a training step, or in the evaluation after the epoch
        with pytest.raises(lvm.NonFiniteError, match=r"epoch \d+, step \d.*positive-definite") as error:
            lvm.fit(model, Shrinking(after), x, epochs=30, batch_size=20)
        assert "\n" not in str(error.value)


def test_a_validation_bound_that_is_not_finite_stops_the_run(x: Tensor) -> None:
    pair = ppca()
    before = weights(*pair)
    far = torch.full((2, D), 1e200)
    with pytest.raises(lvm.NonFiniteError, match="'validation' is -inf after it"):
        lvm.fit(*pair, x, validation=far, epochs=3, batch_size=20)
    assert same(weights(*pair), before)


@pytest.mark.parametrize("kind", ["numpy", "dataset", "pairs", "dynamic", "integers"])
def test_data_of_every_kind(kind: str, bits: Tensor) -> None:
    given: dict[str, Any] = {
        "numpy": bits.numpy(),
        "dataset": TensorDataset(bits),
        "pairs": TensorDataset(bits, torch.zeros(50)),
        "dynamic": data.DynamicBinarisation(torch.full((50, D), 0.4)),
        "integers": bits.to(torch.uint8),
    }
    result = lvm.fit(*vae(), given[kind], epochs=2, batch_size=16)
    assert math.isfinite(result.history[-1]["train"])
    if kind in ("numpy", "dataset", "integers"):
        expected = lvm.fit(*vae(), bits, epochs=2, batch_size=16)
        assert result.history["train"] == pytest.approx(expected.history["train"])


# Users' own programs


def test_functions_with_bare_parameters_train_and_keep_them(x: Tensor) -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(3.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        slope = pyro.param("slope", lambda: torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x.mean(-1), pyro.param("width", torch.tensor(1.0))))

    before = lvm.log_likelihood(model, guide, x, 200, seed=0).mean()
    lvm.fit(model, guide, x, epochs=40, batch_size=20, learning_rate=0.05)
    assert len(pyro.get_param_store()) == 0
    assert lvm.log_likelihood(model, guide, x, 200, seed=0).mean() > before + 0.3


def test_autoguide_of_a_global_latent_finds_the_posterior() -> None:
    """x_n ~ N(m, 1), m ~ N(0, 10²): the posterior is normal and known."""
    x = 3 + torch.randn(50, generator=torch.Generator().manual_seed(0))

    def model(x: Tensor, size: int | None = None) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 10.0))
        with pyro.plate("data", size or len(x), subsample=torch.arange(len(x))):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    guide = AutoNormal(model)
    lvm.fit(
        model, guide, x, objective=objectives.ELBO(10), epochs=600, batch_size=25, learning_rate=0.02,
        scheduler="CosineAnnealingLR",
    )  # fmt: skip
    assert len(pyro.get_param_store()) == 0
    variance = 1 / (1 / 100 + 50)
    mean, scale = (next(p for n, p in guide.named_parameters() if part in n) for part in ("locs", "scales"))
    # the optimiser's noise at a step size annealed to 0, far below the posterior's scale 0.14
    assert float(mean.detach()) == pytest.approx(float(variance * x.sum()), abs=0.03)
    assert float(torch.nn.functional.softplus(scale.detach())) == pytest.approx(variance**0.5, rel=0.15)


def test_global_latents_in_programs_without_size_need_the_full_batch(x: Tensor) -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(0.0, 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0).expand([D]).to_event(1), obs=x)

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(0.0))

        def forward(self, x: Tensor) -> None:
            pyro.sample("m", dist.Normal(self.mean, 1.0))

    with pytest.raises(ValueError, match=r"accepts no 'size'.*batch_size=60"):
        lvm.fit(model, Guide(), x, epochs=1, batch_size=30)
    lvm.fit(model, Guide(), x, epochs=1, batch_size=60)


def test_minibatches_of_global_latents_estimate_the_full_bound() -> None:
    mixture = models.BayesianGaussianMixture(2, 3)
    guide, x = guides.NormalWishart(mixture), torch.randn(40, 2)
    full = torch.tensor([objectives.ELBO().loss(mixture, guide, x) for _ in range(600)])
    parts = torch.tensor(
        [objectives.ELBO().loss(mixture, guide, x[torch.randperm(40)[:10]], size=40) for _ in range(600)]
    )
    assert abs(full.mean() - parts.mean()) < 4 * ((full.var() + parts.var()) / 600).sqrt()


# Faults


class Explodes(nn.Module):
    """A decoder whose second layer gives NaN from its n-th call."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.first, self.second, self.calls, self.after = nn.Linear(M, 4), nn.Linear(4, D), 0, after

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        h = self.second(self.first(z))
        return h * torch.tensor(math.nan) if self.calls > self.after else h


def test_a_loss_that_is_not_finite_names_epoch_step_site_and_layer(x: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Explodes(after=25)
    model = models.VAE(priors.StandardNormal(M), likelihoods.Normal(net))
    guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP(D, 2 * M, (8,))))
    kept: list[list[Tensor]] = []
    with pytest.raises(lvm.NonFiniteError) as error:
        lvm.fit(
            model,
            guide,
            x,
            epochs=20,
            batch_size=20,
            run_dir=tmp_path / "run",
            on_epoch=lambda row: kept.append(weights(model, guide)),
        )
    assert kept, "it trained before it failed"
    assert same(weights(model, guide), kept[-1]), "the last finished epoch's weights are kept"
    assert error.value.site == "x"
    assert error.value.layer == "model.decoder.net"
    assert error.value.epoch == len(kept)
    message = str(error.value)
    assert f"epoch {len(kept) + 1}, step {error.value.step + 1}" in message
    assert "site 'x'" in message
    assert "\n" not in message
    net.calls = 0
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == len(kept) + 1
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_gradient_that_is_not_finite_names_the_site_and_the_parameter(bits: Tensor) -> None:
    class Root(nn.Module):
        """√|θ| at θ = 0: a finite value with an infinite slope."""

        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(()))

        def forward(self, z: Tensor) -> Tensor:
            return z[..., :1].expand(*z.shape[:-1], D) + self.theta.abs().sqrt()

    model = models.VAE(priors.StandardNormal(M), likelihoods.Bernoulli(Root()))
    _, guide = vae()
    with pytest.raises(lvm.NonFiniteError, match="gradient") as error:
        lvm.fit(model, guide, bits, epochs=1, batch_size=10)
    assert (error.value.site, error.value.layer) == ("x", "model.decoder.net.theta")


def test_divergence_stops_with_finite_weights(x: Tensor) -> None:
    pair = ppca()
    with pytest.raises(lvm.NonFiniteError):
        lvm.fit(*pair, x, epochs=200, batch_size=60, optimizer="SGD", learning_rate=1e3)
    assert all(bool(p.isfinite().all()) for p in weights(*pair))


# Bad input


def bad(x: Tensor, value: float) -> Tensor:
    x = x.clone()
    x[3, 1] = value
    return x


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_data_that_are_not_finite_are_refused(value: float, x: Tensor) -> None:
    with pytest.raises(data.DataError, match=r"'data'.*\[3, 1\]"):
        lvm.fit(*ppca(), bad(x, value))
    with pytest.raises(data.DataError, match="'validation'"):
        lvm.fit(*ppca(), x, validation=bad(x, value))
    with pytest.raises(data.DataError, match="'x'"):
        lvm.log_likelihood(*ppca(), bad(x, value))


def test_values_outside_the_support_are_refused_by_name_and_place(bits: Tensor) -> None:
    with pytest.raises(data.DataError, match=r"'data' holds 0.5 at \[3, 1\].*zeros and ones"):
        lvm.fit(*vae(), bad(bits, 0.5), batch_size=10)
    model = models.VAE(priors.StandardNormal(M), likelihoods.Categorical(networks.MLP(M, (D, 4), (8,)), levels=4))
    _, guide = vae()
    late = torch.zeros(5000, D)
    late[4321, 2] = 7
    with pytest.raises(data.DataError, match=r"'data' holds 7 at \[4321, 2\].*whole numbers from 0 to 3"):
        lvm.fit(model, guide, late)
    with pytest.raises(data.DataError, match=r"'x' holds 7 at \[4321, 2\]"):
        lvm.log_likelihood(model, guide, late)


def test_shapes_that_do_not_fit_are_refused_in_one_line(x: Tensor) -> None:
    wide = torch.randn(70, D + 1)
    for model, guide in (ppca(), vae(likelihood="normal")):
        with pytest.raises(ValueError, match=r"shape|sizes") as error:
            lvm.fit(model, guide, wide)
        assert "\n" not in str(error.value)
    own = guides.Amortized(posteriors.DiagonalNormal(nn.Linear(D, 2 * M)))
    with pytest.raises(data.DataError, match=r"'data', of shape \(6,\).* does not go through the programs"):
        lvm.fit(vae(likelihood="normal")[0], own, wide)
    with pytest.raises(data.DataError, match="the likelihood 'x' gives"):
        lvm.fit(
            models.VAE(priors.StandardNormal(M), likelihoods.Normal(nn.Linear(M, D + 1))), vae()[1], x, batch_size=9
        )
    with pytest.raises(ValueError, match="of one kind"):
        lvm.fit(*ppca(), x, validation=wide, batch_size=20)


@pytest.mark.parametrize("decoded", [M, M + 1])
def test_a_latent_of_another_shape_than_its_prior_is_named(decoded: int, x: Tensor) -> None:
    """Whether the decoder fails, being built for the prior's latents, or takes those that the guide draws."""
    _, guide = vae()
    model = models.VAE(priors.StandardNormal(M + 1), likelihoods.Normal(networks.MLP(decoded, D, (8,))))
    says = r"the guide's latent 'z' has shape \(2,\), but the model's has \(3,\)"
    with pytest.raises(ValueError, match=says):
        lvm.fit(model, guide, x, batch_size=20)
    with pytest.raises(ValueError, match=says):
        lvm.log_likelihood(model, guide, x, 10)


class Unsupported(dist.Normal):
    """A normal that does not say where it has its mass."""

    support = property(lambda self: torch.distributions.Distribution.support.fget(self))  # raises NotImplementedError


def test_a_distribution_that_states_no_support_is_taken_as_it_is(x: Tensor) -> None:
    class Encoder(nn.Module):
        def __init__(self, features: int, outputs: int) -> None:
            super().__init__()
            self.net = nn.Linear(features, outputs)

        def forward(self, x: Tensor) -> Any:
            return Unsupported(self.net(x), torch.ones(()), validate_args=False).to_event(1)

    with pytest.raises(NotImplementedError):
        _ = Encoder(D, M)(x).support
    torch.manual_seed(0)
    model, guide = models.VAE(priors.StandardNormal(M), Encoder(M, D)), guides.Amortized(Encoder(D, M))
    result = lvm.fit(model, guide, x, epochs=1, batch_size=20)
    assert result.history.columns.count("bits_per_dimension") == 0  # nor is it taken for discrete data


@pytest.mark.parametrize("error", [ValueError(), RuntimeError(), IndexError(), NotImplementedError()])
def test_an_error_without_a_message_is_told_by_its_kind(error: Exception, x: Tensor) -> None:
    class Failing(nn.Module):
        def forward(self, z: Tensor) -> Any:
            raise error

    for pair in ((models.VAE(priors.StandardNormal(M), Failing()), vae()[1]), (vae()[0], guides.Amortized(Failing()))):
        with pytest.raises(ValueError, match=r"Error without a message$"):
            lvm.fit(*pair, x, batch_size=20)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batch_size": 61}, "'batch_size' = 61 is larger than the data, which are 60"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"epochs": 0}, "'epochs'"),
        ({"learning_rate": -1.0}, "'learning_rate'"),
        ({"learning_rate": math.nan}, "'learning_rate'"),
        ({"gradient_clip": 0.0}, "'gradient_clip'"),
        ({"early_stopping": 3}, "give 'validation' too"),
        ({"optimizer": "Adm"}, "did you mean 'Adam'"),
        ({"optimizer_options": {"momentum": 1}}, "'optimizer_options' do not suit Adam"),
        ({"scheduler": "CosineLR"}, "'scheduler'"),
        ({"scheduler": "StepLR"}, "'scheduler_options' do not suit StepLR"),
        ({"compile": "always"}, "'compile'"),
        ({"resume": True}, "'resume'"),
        ({"devices": 0}, "'devices'"),
        ({"accelerator": "abacus"}, "'accelerator' = 'abacus'"),
        ({"precision": "8-true"}, "'precision' = '8-true'"),
        ({"objective": RenyiELBO(alpha=0, num_particles=2)}, "IWAE in place of RenyiELBO"),
        ({"objective": "elbo"}, "'objective'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], match: str, x: Tensor) -> None:
    with pytest.raises(ValueError, match=match):
        lvm.fit(*ppca(), x, **{"batch_size": 20, **settings})


def test_empty_and_foreign_data_are_refused(x: Tensor) -> None:
    for given in (x[:0], x[:, :0], np.array(["a"]), x + 1j, TensorDataset(x[:0])):
        with pytest.raises(data.DataError):
            lvm.fit(*ppca(), given)
    with pytest.raises(ValueError, match="same program"):
        lvm.fit(*(ppca()[0],) * 2, x)
    with pytest.raises(TypeError, match="callable"):
        lvm.fit("model", ppca()[1], x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="parameter to train"):
        lvm.fit(ppca()[0].requires_grad_(False).eval(), ppca()[1].requires_grad_(False).eval(), x, batch_size=20)


# Run folder


def test_run_folder_holds_settings_history_and_weights(x: Tensor, tmp_path: Path) -> None:
    pair, folder = ppca(), tmp_path / "a" / "run"
    result = lvm.fit(*pair, x, epochs=3, batch_size=20, run_dir=folder, seed=9)
    assert result.run_dir == folder
    config = json.loads((folder / "config.json").read_text())
    assert config["seed"] == 9
    assert config["epochs"] == 3
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0].split(",")[:2] == ["epoch", "train"]
    assert len(lines) == 4
    model, guide = lvm.load(folder)
    assert same(weights(model, guide), weights(*pair))  # type: ignore[arg-type]
    with pytest.raises(FileExistsError, match="not empty"):
        lvm.fit(*pair, x, epochs=1, batch_size=20, run_dir=folder)


def test_run_folder_that_cannot_be_is_refused_before_training(x: Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    pair = ppca()
    before = weights(*pair)
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(OSError, match="'run_dir'"):
            lvm.fit(*pair, x, epochs=1, batch_size=20, run_dir=path)
    assert same(weights(*pair), before)


def test_weights_are_on_disk_while_it_runs(x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.run_folder.SECONDS_BETWEEN_WEIGHTS", 0.0)
    pair = ppca()

    def compare(row: dict[str, float]) -> None:
        model, guide = lvm.load(tmp_path / "run")
        assert same(weights(model, guide), weights(*pair))  # type: ignore[arg-type]

    lvm.fit(*pair, x, epochs=3, batch_size=20, run_dir=tmp_path / "run", on_epoch=compare)
