"""Hierarchies: levels of vectors and maps, guides that share them, and what they are refused for."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import (
    data,
    diagnostics,
    guides,
    likelihoods,
    models,
    networks,
    objectives,
    posteriors,
    priors,
    zoo,
)
from pyro_lvm.guides.top_down import beside, squashed
from pyro_lvm.levels import ConvolutionalLevel, DenseLevel, MarkovLevel, TopLevel
from pyro_lvm.networks.convolutional import ConvolutionalNet, on_maps
from pyro_lvm.objectives.table import run
from pyro_lvm.programs import pair, parameters_of

SHAPE = (8, 8)


def dense(scale: float = 1.0) -> tuple[models.Hierarchical, guides.TopDown]:
    """Three levels of vectors."""
    top = TopLevel(priors.StandardNormal(2), networks.MLP(2, 8, (8,)))
    model = models.Hierarchical(
        [DenseLevel(8, 4), DenseLevel(8, 3), top], likelihoods.Normal(networks.MLP(8, SHAPE, (8,)), scale)
    )
    path = [networks.MLP(SHAPE, 6, (8,)), networks.ResidualBlock(6), networks.ResidualBlock(6)]
    heads = [networks.MLP(6 + 8, 2 * 4, ()), networks.MLP(6 + 8, 2 * 3, ()), networks.MLP(6, 2 * 2, ())]
    return model, guides.TopDown(model.levels, path, heads)


def convolutional() -> tuple[models.Hierarchical, guides.TopDown]:
    """Three levels of maps of two sizes, by the zoo's recipe."""
    binary = data.load("digits", binarise="static")
    model, guide, _ = zoo.build("ladder-conv", binary, levels_per_size=(2, 1), channels=4, latent_channels=1)
    assert isinstance(model, models.Hierarchical)
    assert isinstance(guide, guides.TopDown)
    return model, guide


PAIRS = pytest.mark.parametrize("make", [dense, convolutional])


# The networks.


def test_convolutions_take_any_leading_dimensions() -> None:
    net, x = ConvolutionalNet((3, 8, 8), (2, 2, 2), channels=4), torch.randn(3, 5, 3 * 64)
    assert net(x).shape == (3, 5, 8)
    torch.testing.assert_close(net(x), torch.stack([net(row) for row in x]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net(x)[1, 2], net(x[1, 2]), rtol=1e-12, atol=1e-12)
    maps = torch.randn(2, 3, 4, 4)
    pool = nn.MaxPool2d(2)
    assert torch.equal(on_maps(pool, maps.expand(5, 2, 3, 4, 4))[3], pool(maps))


def test_maps_side_by_side_are_channels_side_by_side() -> None:
    """What a head reads: two states as one vector are their channels in one array."""
    one, other = torch.randn(5, 2, 4, 4), torch.randn(5, 3, 4, 4)
    joined = beside(one.flatten(1), other.flatten(1))
    assert torch.equal(joined.unflatten(-1, (5, 4, 4)), torch.cat([one, other], 1))


def test_pictures_with_colours_are_decoded_value_by_value() -> None:
    decoder = networks.ConvolutionalDecoder((4, 2, 2), (3, 8, 8), outputs=5, channels=4)
    h = torch.randn(6, 16)
    maps = decoder.net(h).reshape(6, 3, 5, 8, 8)
    torch.testing.assert_close(decoder(h)[2, 1, 7, 3, 4], maps[2, 1, 4, 7, 3], rtol=0, atol=0)


# The guide that goes down.


@PAIRS
def test_without_a_word_from_the_data_the_guide_is_the_prior_to_the_bit(make: Any) -> None:
    model, guide = make()
    with torch.no_grad():
        for head in guide.heads:
            last = [module for module in head.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
            last.weight.zero_()
            last.bias.zero_()
    table = run(*pair(model, guide), (model.sample(5),), {}, num_particles=3, nesting=1, with_kl=True)
    assert [site.name for site in table.latents] == ["z_3", "z_2", "z_1"]
    for site in table.latents:
        assert torch.equal(site.log_q, site.log_p.expand_as(site.log_q))
        assert site.kl is not None
        assert bool((site.kl == 0).all())


@PAIRS
def test_the_divergence_of_a_level_is_that_of_its_two_numbers(make: Any) -> None:
    """½ Σ (Δμ²/σ² + Δσ² − log Δσ² − 1), with Δ from the heads."""
    model, guide = make()
    asked: dict[int, Tensor] = {}
    for number, head in enumerate(guide.heads, 1):
        head.register_forward_hook(lambda _, __, out, number=number: asked.update({number: out}))
    table = run(*pair(model, guide), (model.sample(5),), {}, num_particles=3, nesting=1, with_kl=True)
    h = None
    for number, level in list(enumerate(model.levels, 1))[::-1]:
        site = table.sites[f"z_{number}"]
        sigma = level.conditional(h).base_dist.scale
        h = level.state(h, site.value)
        delta, raw = asked[number].chunk(2, -1)
        log_ratio = torch.where(raw > 0, 2 * (raw / 2).tanh(), 7 * (raw / 7).tanh())
        kl = 0.5 * (delta**2 / sigma**2 + log_ratio.exp() - log_ratio - 1).sum(-1)
        torch.testing.assert_close(site.kl, kl.expand_as(site.log_q), rtol=1e-10, atol=1e-10)


def test_scales_are_kept_in_their_range_smoothly() -> None:
    raw = (torch.arange(-500, 501) / 10).requires_grad_()
    out = squashed(raw)
    assert -7.0 <= out.min() < -6.99
    assert 1.99 < out.max() <= 2.0
    (slope,) = torch.autograd.grad(out.sum(), raw, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), raw)
    assert squashed(torch.zeros(())).item() == 0.0
    assert slope.max().item() == slope[500].item() == 1.0
    assert bend[500].item() == 0.0
    assert bend[499:502].abs().max().item() < 0.06  # no jump: it changes with the distance from 0


@PAIRS
def test_the_levels_are_the_models_own_also_after_saving(make: Any, tmp_path: Path) -> None:
    model, guide = make()
    own = sum(p.numel() for part in (model, guide.path, guide.heads) for p in part.parameters())
    assert sum(p.numel() for p in parameters_of(pair(model, guide))) == own
    model_, guide_ = lvm.load(lvm.save(tmp_path, model, guide))
    assert all(one is other for one, other in zip(model_.levels, guide_.levels, strict=True))
    x = model.sample(4)
    scores = [lvm.log_likelihood(*programs, x, 20, seed=0) + 0 for programs in ((model, guide), (model_, guide_))]
    assert torch.equal(*scores)


def test_every_level_is_logged_converted_and_paid_for_apart() -> None:
    model, guide = convolutional()
    x = model.sample(20)
    objective = objectives.ELBO(analytic_kl=True, free_bits=5.0, free_bits_per="layer")
    result = lvm.fit(model, guide, x, objective=objective, epochs=1, batch_size=20, learning_rate=1e-6)
    row = result.history[-1]
    kl = {number: row[f"kl_z_{number}"] for number in (1, 2, 3)}
    assert all(value < 5.0 for value in kl.values())
    # All levels are below their free bits, so that each is charged them, and no more: on whatever draws.
    table = objective.table(*pair(model, guide), x)
    assert objective.bound(table).item() / 20 == pytest.approx(table.reconstruction() / 20 - 15.0, rel=1e-9)
    idata = lvm.posterior(model, guide, x[:3], draws=4, chains=1, seed=0)
    shapes = {name: values.shape for name, values in idata.posterior.data_vars.items()}
    assert shapes == {"z_1": (1, 4, 3, 16), "z_2": (1, 4, 3, 16), "z_3": (1, 4, 3, 4)}
    active = diagnostics.active_units(model, guide, x, seed=0)
    assert active is not None
    assert active.total == 36


# The guide that goes up.


def test_a_bottom_up_guide_reads_draws_of_the_level_below() -> None:
    lower = posteriors.DiagonalNormal(networks.MLP(SHAPE, 2 * 3, (8,)))
    upper = posteriors.DiagonalNormal(networks.MLP(3, 2 * 2, (8,)))
    top = TopLevel(priors.StandardNormal(2), nn.Identity())
    model = models.Hierarchical(
        [MarkovLevel(nn.Linear(2, 6)), top], likelihoods.Normal(networks.MLP(3, SHAPE, (8,)), 1.0)
    )
    guide, x = guides.BottomUp([lower, upper]), model.sample(5)
    table = run(*pair(model, guide), (x,), {}, num_particles=4, nesting=1, with_kl=True)
    z_1, z_2 = table.sites["z_1"], table.sites["z_2"]
    assert (z_1.value.shape, z_2.value.shape) == ((4, 5, 3), (4, 5, 2))
    torch.testing.assert_close(z_2.log_q, upper(z_1.value).log_prob(z_2.value))
    # p(z_1 | z_2) is at a draw that the guide makes after z_1: no divergence given the other latents.
    assert z_1.kl is None
    assert z_2.kl is not None


# What the levels decide.


def test_rows_share_the_upper_levels_only() -> None:
    model, _ = dense(scale=1e-9)
    x = diagnostics.sample_levels(model, held=3, rows=3, columns=4, seed=0).unflatten(0, (3, 4))
    assert (x - x[:, :1]).abs().max() < 1e-7
    assert (x[1:] - x[:-1]).abs().amax((1, 2, 3)).min() > 1e-3
    x = diagnostics.sample_levels(model, held=1, rows=3, columns=4, seed=0).unflatten(0, (3, 4))
    assert (x[:, 1:] - x[:, :-1]).abs().amax((2, 3)).min() > 1e-3
    pictures = diagnostics.plot_levels(model, held=2, rows=3, columns=4, seed=0).images[0].get_array()
    assert pictures.shape == (3 * 9 + 1, 4 * 9 + 1)


# What is refused.


def wrong_pair(change: str) -> Any:
    model, guide = dense()
    x, dims = model.sample(3), (SHAPE, 4, 3, 2, 1)
    if change.endswith("in the guide"):
        count = 2 if change.startswith("one level less") else 4
        nets = [networks.MLP(below, 2 * own, ()) for below, own in pairwise(dims[: count + 1])]
        guide = guides.BottomUp([posteriors.DiagonalNormal(net) for net in nets])
    elif change == "head of another size":
        guide.heads[1] = networks.MLP(6 + 8, 8, ())
    elif change == "prior that is no normal":
        model.levels[2].prior = priors.MixtureOfGaussians(2, 3)
    lvm.fit(model, guide, x, epochs=1, batch_size=3)
    return None


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: models.Hierarchical([], nn.Identity()), "'levels' must hold at least one level"),
        (lambda: guides.BottomUp([]), "'posteriors' must hold one for each level"),
        (lambda: guides.TopDown([], [], []), "'levels', 'path' and 'heads' must have one entry for each level"),
        (lambda: guides.TopDown(dense()[0].levels, [nn.Identity()], [nn.Identity()] * 3), "have 3, 1 and 3"),
        (lambda: wrong_pair("one level less in the guide"), "the model's latent 'z_3' is not in the guide"),
        (lambda: wrong_pair("one level more in the guide"), "the guide's latent 'z_4' is not one of the model's"),
        (lambda: wrong_pair("head of another size"), "'z_2' has M = 3 dimensions and its head gives 8 values"),
        (lambda: wrong_pair("prior that is no normal"), "moves and scales diagonal normals, but the model's 'z_3'"),
        (lambda: DenseLevel(8, 0), "'latent_dim' must be at least 1, not 0"),
        (lambda: DenseLevel(8, 3).conditional(None), "cannot be the top: put a `TopLevel` there"),
        (lambda: dense()[0].levels[2].conditional(torch.zeros(8)), "it can only be the last of 'levels'"),
        (lambda: MarkovLevel(nn.Linear(2, 5)).conditional(torch.zeros(2)), "it gives 5, an odd number"),
        (lambda: ConvolutionalNet((1, 28, 28), (1, 5, 5)), "28 by 28, which cannot be brought to 5 by 5"),
        (lambda: ConvolutionalNet((1, 7, 7), (1, 3, 3)), "28 → 14 → 7, which is as far as 28 goes"),
        (lambda: ConvolutionalNet((1, 8, 8), (1, 16, 4)), "cannot be brought to 16 by 4"),
        (
            lambda: ConvolutionalNet((1, 8, 8), (1, 4, 4))(torch.zeros(5, 65)),
            "as vectors of 64 numbers, but was given 65",
        ),
        (lambda: ConvolutionalNet((8, 8), (1, 4, 4)), r"'in_shape' is the shape of maps, \(channels, height, width\)"),
        (lambda: ConvolutionalNet((1, 8, 8), (1, 4, 4), blocks=-1), "'blocks' is a number of residual blocks"),
        (lambda: networks.ConvolutionalEncoder((64,), (1, 4, 4)), "'data_shape' is the shape of a picture"),
        (
            lambda: networks.ConvolutionalEncoder(SHAPE, (1, 4, 4))(torch.zeros(5, 8, 9)),
            r"build it with data_shape=\(8, 9\)",
        ),
        (lambda: ConvolutionalLevel((4, 4, 4), 1, below=(4, 9, 9)), "sizes must halve or double evenly"),
        (lambda: ConvolutionalLevel((4, 4, 4), 1, below=(5, 8, 8)), "'below' must have the channels of 'shape'"),
        (lambda: ConvolutionalLevel((4, 4, 4), 1, below=(4, 2, 2)), "'below' cannot be smaller than 'shape'"),
        (
            lambda: zoo.build("ladder-dense", data.load("digits"), latent_dims=()),
            "'latent_dims' must hold the dimensions",
        ),
        (lambda: zoo.build("hvae-top-down", data.load("digits"), latent_dims=(2, 0)), "'latent_dims' must hold sizes"),
        (lambda: zoo.build("ladder-conv", data.load("digits"), levels_per_size=()), "'levels_per_size' must hold"),
        (
            lambda: zoo.build("ladder-conv", data.load("digits"), levels_per_size=(1, 1, 1, 1)),
            "does not halve evenly so often",
        ),
        (lambda: zoo.build("ladder-conv", data.from_arrays(torch.randn(9, 3))), "is for pictures"),
    ],
)
def test_wrong_hierarchies_are_refused_in_a_sentence(make: Any, match: str) -> None:
    with pytest.raises((ValueError, data.DataError), match=match) as raised:
        make()
    assert "\n" not in str(raised.value)


# What they are worth.


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_upper_level_collapses_from_below_and_lives_from_above() -> None:
    """At the end of training on the digits, nats per datum."""
    torch.set_default_dtype(torch.float32)
    try:
        dataset, ends = data.load("digits"), {}
        for name in ("hvae-bottom-up", "hvae-top-down"):
            model, guide, recipe = zoo.build(name, dataset, seed=0)
            result = lvm.fit(
                model,
                guide,
                dataset.train,
                validation=dataset.validation,
                objective=recipe.objective,
                seed=0,
                **recipe.training,
            )
            ends[name] = result.history[-1]["kl_z_2"]
    finally:
        torch.set_default_dtype(torch.float64)
    print(f"divergence of the upper level: {ends}")
    assert ends["hvae-bottom-up"] < 0.1
    assert ends["hvae-top-down"] > 1.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twelve_levels_of_maps_learn_a_batch_by_heart() -> None:
    """64 binary pictures of 28 by 28: the loss falls by half and more."""
    torch.set_default_dtype(torch.float32)
    try:
        large = nn.functional.interpolate(data.load("digits").train[:64, None].float(), (28, 28), mode="bilinear")
        binary = (large[:, 0] > 8).to(torch.uint8)
        dataset = data.from_arrays(binary, binary, binary, levels=2, name="64 digits of 28 by 28")
        assert len(dataset.train) == 64
        model, guide, _ = zoo.build("ladder-conv", dataset, seed=0)
        assert isinstance(model, models.Hierarchical)
        assert len(model.levels) == 12
        objective, x = objectives.ELBO(analytic_kl=True), dataset.train
        before = objective.loss(model, guide, x) / 64
        lvm.fit(model, guide, x, objective=objective, epochs=100, batch_size=64, learning_rate=3e-3, seed=0)
        after = objective.loss(model, guide, x) / 64
    finally:
        torch.set_default_dtype(torch.float64)
    print(f"loss of 64 pictures, nats each: {before:.1f}, then {after:.1f}")
    assert after < 0.5 * before
