"""Draws have the probabilities they should have, and depend on the seed and nothing else."""

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_lvm import data

GREYS = torch.arange(256, dtype=torch.uint8).repeat(500, 1)  # (500, 256): each value 500 times


def assert_bernoulli(draws: Tensor, p: Tensor) -> None:
    """Column means within 5 standard errors (256 columns: a chance of 1 in 7,000), and exact where p is 0 or 1."""
    error = (p * (1 - p) / len(draws)).sqrt()
    assert set(draws.unique().tolist()) <= {0.0, 1.0}
    assert ((draws.to(p).mean(0) - p).abs() <= 5 * error).all()


def test_static_draw_has_the_right_probabilities() -> None:
    dataset = data.from_arrays(GREYS, 0, 0, binarise="static")
    assert isinstance(dataset.train, Tensor)
    assert (dataset.name, dataset.levels) == ("arrays-static", 2)
    assert dataset.train.dtype == torch.float32
    assert_bernoulli(dataset.train, torch.arange(256) / 255.0)


def test_dynamic_draws_have_the_right_probabilities_and_are_independent() -> None:
    dataset = data.from_arrays(GREYS[:1], 0, 0, binarise="dynamic")
    assert isinstance(dataset.train, data.DynamicBinarisation)
    draws = torch.cat([dataset.train[torch.zeros(50, dtype=torch.int64)] for _ in range(40)])  # (2000, 256)
    assert draws.dtype == torch.float32
    assert_bernoulli(draws, torch.arange(256) / 255.0)
    # Neighbouring uses of one pixel are uncorrelated: z-score of the lag-one products over the whole table.
    p = torch.arange(256) / 255.0
    centred = (draws - p)[:, 1:-1] / (p * (1 - p)).sqrt()[1:-1]
    products = centred[1:] * centred[:-1]
    assert products.mean().abs() < 4 / products.numel() ** 0.5


def test_threshold() -> None:
    dataset = data.from_arrays(GREYS, 0, 0, binarise="threshold")
    assert torch.equal(dataset.train[0].double(), (torch.arange(256) >= 127.5).double())


def test_digits_are_drawn_by_sixteenths() -> None:
    dataset = data.load("digits", binarise="dynamic")
    assert isinstance(dataset.train, data.DynamicBinarisation)
    grey = data.load("digits").train
    assert torch.equal(dataset.train.probabilities[:], grey[:] / 16)
    assert dataset.train[:].shape == (1000, 8, 8)


def test_dynamic_draws_follow_the_global_generator() -> None:
    train = data.load("digits-dynamic").train
    index = torch.tensor([5, 3, 5])
    torch.manual_seed(1)
    first, second = train[index], train[index]
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[2])  # one example twice in a batch is drawn twice
    torch.manual_seed(1)
    assert torch.equal(train[index], first)


@pytest.mark.parametrize("binarise", ["static", "dynamic", "threshold"])
def test_loading_leaves_the_global_generator_alone(binarise: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    data.load("digits", binarise=binarise)  # type: ignore[arg-type]
    data.from_arrays(GREYS)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_depends_on_the_seed_only() -> None:
    static, again, other = (data.load("digits", binarise="static", seed=seed) for seed in (0, 0, 1))
    for key in ("train", "validation", "test"):
        assert torch.equal(static.splits[key][:], again.splits[key][:])
        assert not torch.equal(static.splits[key][:], other.splits[key][:])
    # not on the sizes of splits
    smaller = data.load("digits", binarise="static", validation=50)
    assert torch.equal(
        torch.cat([static.train[:], static.splits["validation"][:]])[1300:], smaller.splits["validation"][:]
    )
    # not on whether the training part is drawn anew
    dynamic = data.load("digits", binarise="dynamic")
    for key in ("validation", "test"):
        assert torch.equal(static.splits[key][:], dynamic.splits[key][:])


def test_splits_are_drawn_independently() -> None:
    half = torch.full((400, 4), 0.5)
    dataset = data.from_arrays(half, half, half, binarise="static")
    for a, b in (("train", "validation"), ("validation", "test"), ("train", "test")):
        same = (dataset.splits[a][:] == dataset.splits[b][:]).double().mean()
        assert abs(same - 0.5) < 4 * 0.5 / 1600**0.5


def test_real_values_are_probabilities() -> None:
    p = torch.rand(10, 3)
    dataset = data.from_arrays(p, 0, 0, binarise="dynamic")
    assert isinstance(dataset.train, data.DynamicBinarisation)
    assert torch.equal(dataset.train.probabilities[:], p.float())
    with pytest.raises(data.DataError, match=r"'train' must lie in \[0, 1\] to be binarised, but ranges from"):
        data.from_arrays(p * 2 + 1, 0, 0, binarise="static")
    with pytest.raises(data.DataError, match=r"ranges from nan"):
        data.DynamicBinarisation(torch.tensor([0.5, float("nan")]))


def test_binary_data_are_not_binarised() -> None:
    with pytest.raises(data.DataError, match="'binarise' must be None for binary data"):
        data.from_arrays(torch.ones(10, 2, dtype=torch.bool), binarise="static")


@pytest.mark.parametrize(
    "index", [3, -1, slice(2, 5), slice(None), [1, 4], torch.tensor([4, 4, 0]), torch.tensor([], dtype=torch.int64)]
)
def test_indexing_has_the_shapes_of_a_tensor(index: data.dataset.Index) -> None:
    reference = torch.zeros(6, 2, 3)
    assert data.DynamicBinarisation(reference)[index].shape == reference[index].shape
    compact = data.CompactDataset(torch.zeros(6, 2, 3, dtype=torch.uint8), divisor=255)
    assert compact[index].shape == reference[index].shape
    assert data.DynamicBinarisation(compact)[index].shape == reference[index].shape


def test_out_of_range() -> None:
    train = data.DynamicBinarisation(torch.zeros(2, 3))
    with pytest.raises(IndexError):
        train[2]
    assert len(list(train)) == len(train) == 2  # type: ignore[call-overload]  # iterates by index, as tensors do


def test_subset_and_loader() -> None:
    train = data.DynamicBinarisation(torch.eye(5, dtype=torch.float32))
    assert torch.equal(train.subset(slice(1, 3))[:], torch.eye(5, dtype=torch.float32)[1:3])
    assert torch.equal(train.subset(torch.tensor([4, 0]))[:], torch.eye(5, dtype=torch.float32)[[4, 0]])
    batches = list(DataLoader(train, batch_size=2))
    assert torch.equal(torch.cat(batches), torch.eye(5, dtype=torch.float32))
    assert repr(train) == "DynamicBinarisation(5, 5)"


def test_bad_arguments() -> None:
    with pytest.raises(
        data.DataError, match=r"'binarise' must be one of 'static', .* 'dynamc': did you mean 'dynamic'"
    ):
        data.load("digits", binarise="dynamc")  # type: ignore[arg-type]
    with pytest.raises(data.DataError, match="'seed' must be a whole number from 0, but is -1"):
        data.load("digits", binarise="static", seed=-1)
    with pytest.raises(data.DataError, match="'binarise' must agree with the name 'digits-static'"):
        data.load("digits-static", binarise="dynamic")
