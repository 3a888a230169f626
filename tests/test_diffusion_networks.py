"""Networks that are told the time: shapes, what they see, and that they train the same however they are run."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import data, diffusion, guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.configuration import Part
from pyro_lvm.networks import FourierFeatures, TimeEmbedding, TimeMLP, UNet

SMALL: dict[str, Any] = {"channels": (4, 8)}


def perturbed(net: nn.Module) -> nn.Module:
    """With weights that are large and random, and a bias everywhere."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0.0, 0.5)
    return net


# What they compute


def test_features_are_sines_and_cosines():
    z = torch.linspace(-1, 1, 7)
    found = FourierFeatures((2, 5))(z)
    expected = [z, *(f(2**k * torch.pi * z) for k in (2, 5) for f in (torch.sin, torch.cos))]
    torch.testing.assert_close(found, torch.stack(expected, -1), rtol=1e-13, atol=1e-13)


def test_times_a_step_apart_are_told_apart_at_a_thousand_steps():
    embedding = TimeEmbedding(16)
    t = torch.arange(1, 1001) / 1000
    angle = t[:, None] * embedding.frequencies
    features = torch.cat([angle.sin(), angle.cos()], -1)
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert distance.min() > 0.5


NETS: dict[str, tuple[nn.Module | Any, tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]] = {
    "mlp": (lambda: TimeMLP((4, 4), hidden_features=8), (4, 4), (4, 4), None),
    "mlp, condition": (lambda: TimeMLP(6, (2, 6), 8, condition_shape=(2, 2)), (6,), (2, 6), (2, 2)),
    "u-net": (lambda: UNet((8, 8), **SMALL), (8, 8), (8, 8), None),
    "u-net, 28": (lambda: UNet((28, 28), channels=(4, 4, 4)), (28, 28), (28, 28), None),
    "u-net, classes": (lambda: UNet((8, 8), condition_shape=3, attention_heads=2, **SMALL), (8, 8), (8, 8), (3,)),
    "u-net, picture": (lambda: UNet((8, 4), condition_shape=(4, 2), **SMALL), (8, 4), (8, 4), (4, 2)),
    "u-net, levels": (lambda: UNet((4, 4), inputs=5, out_shape=(4, 4, 6), **SMALL), (4, 4, 5), (4, 4, 6), None),
    "u-net, colours": (
        lambda: UNet((3, 4, 4), out_shape=(2, 3, 4, 4), condition_shape=(3, 2, 2), exponents=(1,), **SMALL),
        (3, 4, 4),
        (2, 3, 4, 4),
        (3, 2, 2),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_every_datum_is_computed_for_itself_and_leading_dimensions_broadcast(name: str):
    make, in_shape, out_shape, condition_shape = NETS[name]
    net = perturbed(make())
    z, t = torch.randn(3, 1, *in_shape), torch.rand(2)
    c = () if condition_shape is None else (torch.randn(1, 2, *condition_shape),)
    out = net(z, t, *c)
    assert out.shape == (3, 2, *out_shape)
    for k in range(3):
        for b in range(2):
            one = net(z[k, 0], t[b], *(each[0, b] for each in c))
            torch.testing.assert_close(one, out[k, b], rtol=1e-9, atol=1e-9)
    # One time for all is a path of its own.
    again = net(z[:, 0], t[0], *(each[0, 0] for each in c))
    torch.testing.assert_close(again, out[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_all_they_are_given_is_seen_and_all_they_have_has_a_gradient(name: str):
    make, in_shape, out_shape, condition_shape = NETS[name]
    net = make()
    z, t = torch.randn(5, *in_shape, requires_grad=True), torch.rand(5, requires_grad=True)
    c = () if condition_shape is None else (torch.randn(5, *condition_shape, requires_grad=True),)
    (net(z, t, *c) * torch.randn(5, *out_shape)).sum().backward()
    given: list[Tensor] = [z, t, *c]
    assert all(bool((each.grad != 0).all()) for each in given)
    none = [n for n, p in net.named_parameters() if p.grad is None or not bool((p.grad.abs() > 1e-12).any())]
    assert none == []


def test_a_condition_of_a_picture_is_seen_where_it_is():
    """Without a way down the U-Net reads a neighbourhood: what is far from where the condition changed is the same."""
    net = perturbed(UNet((16, 16), channels=(4,), condition_shape=(8, 8)))
    for part in net.modules():
        if isinstance(part, nn.GroupNorm):  # which sees all places
            part.forward = lambda x: x  # type: ignore[method-assign]
    z, t, c = torch.randn(16, 16), torch.tensor(0.5), torch.randn(8, 8)
    other = c.clone()
    other[0, 0] += 1.0
    changed = (net(z, t, c) != net(z, t, other)).nonzero()
    reach = 1 + 1 + 2 * 4 + 1  # its own two pixels, the first convolution, four blocks of two, the last one
    assert bool((changed == 0).all(-1).any())
    assert int(changed.max()) == reach


# Saved, compiled


def pair(net: nn.Module, condition: Any = None) -> tuple[models.Diffusion, guides.SubsampledDiffusion]:
    schedule = diffusion.CosineSchedule(20)
    process = diffusion.ForwardProcess((4, 4), schedule, 20, centre=2.0, spread=2.0)
    reverse = diffusion.Reverse(net, (4, 4), schedule, diffusion.Velocity(), diffusion.SmallVariance())
    model = models.Diffusion(process, reverse, likelihoods.NoisedLevels(process, 5), condition)
    return model, guides.SubsampledDiffusion(process, condition)


def labelled(seed: int = 0) -> tuple[models.Diffusion, guides.SubsampledDiffusion]:
    torch.manual_seed(seed)
    condition = diffusion.Label((4, 4), classes=3)
    return pair(UNet((4, 4), condition_shape=condition.shape, **SMALL), condition)


@pytest.fixture
def dataset() -> data.Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, (40, 4, 4), generator=generator).float()
    labels = torch.arange(40) % 3
    return data.with_labels(data.Dataset("noise", x, test=x[:10], labels={"train": labels, "test": labels[:10]}), 0.5)


def test_labels_stand_beside_the_data_and_some_are_unknown(dataset: data.Dataset):
    first, again = dataset.train[:], dataset.train[:]
    assert first.shape == (40, 17)
    assert torch.equal(first[:, :-1], again[:, :-1])
    assert set(first[:, -1].unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    assert not torch.equal(first[:, -1], again[:, -1])
    known = first[:, -1] < 3
    assert torch.equal(first[known, -1], (torch.arange(40) % 3)[known].float())
    assert 0.5 - 4 * 0.5 / 40**0.5 < known.double().mean() < 0.5 + 4 * 0.5 / 40**0.5
    assert torch.equal(dataset.test[:][:, -1], (torch.arange(10) % 3).float())
    assert torch.equal(dataset.train.subset(torch.tensor([3, 1])).labels, torch.tensor([0, 1]))
    with pytest.raises(data.DataError, match="'dataset' must have labels, but its train data have none"):
        data.with_labels(data.Dataset("bare", torch.zeros(3, 2)))
    with pytest.raises(data.DataError, match="'labels' must be from 0 to 1"):
        data.LabelledDataset(torch.zeros(2, 3), torch.tensor([0, 2]), classes=2)


def test_a_conditional_diffusion_trains_and_is_saved(dataset: data.Dataset, tmp_path: Any):
    model, guide = labelled()
    before = {n: p.clone() for n, p in model.named_parameters()}
    lvm.fit(model, guide, dataset.train, validation=dataset.test, epochs=3, batch_size=20, run_dir=tmp_path / "run")
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []
    again, _ = lvm.load(tmp_path / "run")
    sampler, c = diffusion.DDIM(5), model.condition.of(torch.tensor([0, 1, 2, 3]))
    torch.manual_seed(1)
    expected = sampler(model, 4, given=c)
    torch.manual_seed(1)
    assert torch.equal(sampler(again, 4, given=c), expected)


def test_compiled_training_of_a_u_net_is_uncompiled_training(dataset: data.Dataset, no_compiler: None):
    plain, compiled, x = labelled(), labelled(), dataset.test[:].double()
    for programs, compile in ((plain, False), (compiled, True)):
        lvm.fit(*programs, x, epochs=6, batch_size=10, learning_rate=0.01, compile=compile, weight_average=0.9)
    for p, q in zip(plain[0].parameters(), compiled[0].parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-8, atol=1e-10)


class ChannelsLast(Part):
    """A convolution that gives its weights a gradient in another order of memory than theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, None]).relu().contiguous(memory_format=torch.channels_last)
        return self.last(h).flatten(1)


def test_compiled_training_does_not_depend_on_the_layout_of_gradients(no_compiler: None):
    x, trained = torch.randn(20, 4, 4), []
    for compile in (False, True):
        torch.manual_seed(0)
        guide = guides.Amortized(posteriors.DiagonalNormal(ChannelsLast()))
        model = models.VAE(priors.StandardNormal(2), likelihoods.Normal(networks.MLP(2, (4, 4), ()), "shared", (4, 4)))
        lvm.fit(model, guide, x, epochs=6, batch_size=20, learning_rate=0.01, compile=compile)
        trained.append(torch.nn.utils.parameters_to_vector(guide.parameters()).detach())
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-8, atol=1e-10)


# What they refuse


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: UNet((28, 28), channels=(4, 4, 4, 4)), "pictures of 28 by 28 do not halve evenly 3 times, as 4 'chan"),
        (lambda: UNet((8,)), r"'data_shape' is the shape of a picture, .* not \(8,\)"),
        (lambda: UNet((8, 8), channels=()), "'sizes' must be at least 1, not 0"),
        (lambda: UNet((8, 8), channels=(4, 0)), r"'channels' must hold sizes.* not \(4, 0\)"),
        (lambda: UNet((8, 8), attention_heads=3, **SMALL), "'attention_heads' = 3 must divide .* 8"),
        (lambda: UNet((8, 8), out_shape=(8, 8, 2, 3)), r"'out_shape' must be 'data_shape'.* not \(8, 8, 2, 3\)"),
        (lambda: UNet((8, 8), condition_shape=(3, 3)), r"a picture whose size divides 8 by 8, not \(3, 3\)"),
        (lambda: UNet((8, 8), **SMALL)(torch.zeros(2, 8, 7), torch.zeros(2)), r"'z' must have shape \(..., 8, 8\)"),
        (lambda: TimeMLP(3, spread=0.0), "'spread' divides the input and must be positive, not 0.0"),
        (lambda: TimeMLP(3, hidden_features=0), "'hidden_features' must be at least 1, not 0"),
        (lambda: TimeMLP(3)(torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 4)), "'c' is a condition, but the net"),
        (lambda: TimeMLP(3, condition_shape=4)(torch.zeros(2, 3), torch.zeros(2)), "'c' is left out, but the network"),
    ],
)
def test_wrong_requests_are_refused(call: Any, match: str):
    with pytest.raises(ValueError, match=match):
        call()
