"""A user's own arrays, tensors and torch Datasets: converted, split and checked."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from pyro_lvm import data

RAMP = torch.arange(40, dtype=torch.float64).reshape(20, 2)


def whole(dataset: data.Dataset) -> Tensor:
    return torch.cat([split[:] for split in dataset.splits.values()])


@pytest.mark.parametrize(
    "array",
    [
        RAMP,
        RAMP.float(),
        RAMP.bfloat16(),
        RAMP.long(),
        RAMP.numpy(),
        RAMP.numpy().astype(np.uint16),
        RAMP.numpy().astype(np.uint64),
        RAMP.numpy().astype(np.longdouble),
        RAMP.numpy().astype(">f4"),
        np.asfortranarray(RAMP.numpy()),
        RAMP.numpy()[::-1].copy()[::-1],
        RAMP.tolist(),
        RAMP.clone().requires_grad_(),
        np.ma.masked_array(RAMP.numpy()),
    ],
    ids=lambda a: f"{type(a).__name__}-{getattr(a, 'dtype', '')}",
)
def test_every_kind_of_array(array: Any) -> None:
    dataset = data.from_arrays(array, 0, 0)
    assert isinstance(dataset.train, Tensor)
    assert dataset.train.dtype == torch.float32
    assert not dataset.train.requires_grad
    assert torch.equal(dataset.train.double(), RAMP)
    assert dataset.validation is None
    assert dataset.test is None


@pytest.mark.parametrize("array", [RAMP.float().clone(), RAMP.float().numpy().copy()], ids=["tensor", "numpy"])
def test_values_are_copied(array: Any) -> None:
    dataset = data.from_arrays(array, 0, 0)
    array[0] = -1.0
    assert dataset.train[0].tolist() == [0.0, 1.0]


def test_read_only_arrays() -> None:
    array = np.broadcast_to(np.arange(3.0), (5, 3))
    assert data.from_arrays(array, 0, 0).train.shape == (5, 3)


@pytest.mark.parametrize(
    ("array", "levels"),
    [
        (np.array([[True], [False]]), 2),
        (np.array([[0], [0]]), 2),
        (np.array([[0], [1]], dtype=np.uint8), 2),
        (np.array([[0], [4]]), 5),
        (np.array([[0], [16]], dtype=np.uint8), 17),
        (np.array([[0], [17]], dtype=np.uint8), 256),
        (np.array([[8], [238]]), 256),
        (np.array([[0], [255]]), 256),
        (np.array([[0], [256]]), None),
        (np.array([[-1], [3]]), None),
        (np.array([[0.0], [1.0]]), None),
    ],
    ids=str,
)
def test_levels_inferred(array: Any, levels: int | None) -> None:
    assert data.from_arrays(array, 0, 0).levels == levels


def test_levels_are_those_of_all_splits_and_can_be_given() -> None:
    assert data.from_arrays(np.array([[0], [1]]), test=np.array([[3]])).levels == 4
    assert data.from_arrays(np.array([[0], [1]]), test=np.array([[3.0]])).levels is None
    assert data.load(np.array([[0.0], [1.0]] * 5), levels=7).levels == 7
    with pytest.raises(data.DataError, match=r"'test' must hold whole numbers from 0 to 2, but test\[0, 0\] is 3"):
        data.from_arrays(np.array([[0], [1]]), test=np.array([[3]]), levels=3)


def test_one_array_is_split_once_and_for_all() -> None:
    dataset = data.load(RAMP)
    assert [len(split) for split in dataset.splits.values()] == [16, 2, 2]
    assert torch.equal(whole(dataset).double().sort(0).values, RAMP)  # every example exactly once
    again, other = data.from_arrays(RAMP), data.from_arrays(RAMP, seed=1)
    assert torch.equal(whole(dataset), whole(again))
    assert not torch.equal(whole(dataset), whole(other))


@pytest.mark.parametrize(
    ("validation", "test", "sizes"),
    [
        (3, 4, (13, 3, 4)),
        (0.25, None, (13, 5, 2)),
        (None, 0, (18, 2, None)),
        (0, 0, (20, None, None)),
        (0.01, 1, (18, 1, 1)),
        (np.int64(3), np.float64(0.1), (15, 3, 2)),
    ],
)
def test_sizes(validation: Any, test: Any, sizes: tuple[int | None, ...]) -> None:
    dataset = data.load(RAMP, validation=validation, test=test)
    found = [None if split is None else len(split) for split in (dataset.train, dataset.validation, dataset.test)]
    assert found == list(sizes)
    assert repr(dataset).startswith("Dataset('arrays', train=" + str(sizes[0]))


def test_given_splits_are_kept_in_order() -> None:
    dataset = data.from_arrays(RAMP[:10], test=RAMP[10:])
    assert dataset.validation is None
    assert torch.equal(whole(dataset).double(), RAMP)
    dataset = data.from_arrays(RAMP[:10], validation=0.2, test=RAMP[10:])
    assert dataset.validation is not None
    assert len(dataset.validation) == 2
    assert torch.equal(dataset.splits["test"][:].double(), RAMP[10:])


def test_labels_stay_with_their_examples() -> None:
    for dataset in (
        data.from_arrays(RAMP, labels=torch.arange(20)),
        data.from_arrays(TensorDataset(RAMP, torch.arange(20))),
    ):
        for key, split in dataset.splits.items():
            assert dataset.labels[key].dtype == torch.int64
            assert torch.equal(split[:, 0].double(), 2.0 * dataset.labels[key])  # type: ignore[index]


def test_labels_by_split() -> None:
    dataset = data.from_arrays(RAMP[:15], test=RAMP[15:], labels={"test": np.arange(5, dtype=np.uint8)})
    assert list(dataset.labels) == ["test"]
    with pytest.raises(data.DataError, match="'labels' must be one of 'train', 'test', but is 'tests'"):
        data.from_arrays(RAMP[:15], test=RAMP[15:], labels={"tests": np.arange(5)})


def test_labels_of_several_axes_flatten_both() -> None:
    images = torch.rand(3, 4, 2, 2)
    dataset = data.from_arrays(images, 0, 0, labels=torch.arange(12).reshape(3, 4))
    assert dataset.shape == (2, 2)
    assert torch.equal(dataset.train[7].double(), images[1, 3].float().double())
    assert dataset.labels["train"].tolist() == list(range(12))


class Squares(TorchDataset[Any]):
    """Items are computed; `reads` counts them."""

    def __init__(self, size: int, item: Any = None) -> None:
        self.size, self.item, self.reads = size, item, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> Any:
        self.reads += 1
        return torch.full((2, 3), float(i**2)) if self.item is None or i != 3 else self.item


def test_small_torch_dataset_becomes_a_tensor() -> None:
    dataset = data.load(Squares(5), validation=0, test=0)
    assert isinstance(dataset.train, Tensor)
    assert dataset.train[:, 0, 0].tolist() == [0.0, 1.0, 4.0, 9.0, 16.0]


def test_large_torch_dataset_is_read_at_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.data.arrays.LARGE", 100)
    squares = Squares(50)
    dataset = data.from_arrays(squares, validation=10, test=0)
    train = dataset.train
    assert isinstance(train, data.StackedDataset)
    assert squares.reads < 10
    assert train.shape == (40, 2, 3)
    both = torch.cat([train[:], dataset.splits["validation"][:]])
    assert both.dtype == torch.float32
    assert both[:, 0, 0].sort().values.tolist() == [float(i**2) for i in range(50)]
    assert torch.equal(train[torch.tensor([3, 0])], torch.stack([train[3], train[0]]))
    assert torch.equal(torch.cat(list(DataLoader(train, batch_size=7))), train[:])
    assert train[torch.tensor([], dtype=torch.int64)].shape == (0, 2, 3)
    with pytest.raises(IndexError):
        train[40]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (torch.full((2, 3), float("nan")), r"'item 3' must be finite, but item 3\[0, 0\] is nan"),
        (torch.full((2, 3), 0.5), r"'item 3' must hold whole numbers from 0 to 2401"),
        (torch.zeros(3, 2), r"'item 3' must hold examples of shape \(2, 3\)"),
    ],
)
def test_large_torch_dataset_is_checked_at_use(monkeypatch: pytest.MonkeyPatch, item: Tensor, words: str) -> None:
    monkeypatch.setattr("pyro_lvm.data.arrays.LARGE", 100)
    train = data.from_arrays(Squares(50, item), 0, 0, levels=2402).train
    train[:3]
    with pytest.raises(data.DataError, match=words):
        train[:]


def test_large_torch_dataset_is_binarised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.data.arrays.LARGE", 100)
    monkeypatch.setattr("pyro_lvm.data.binarisation.LARGE", 100)
    dataset = data.from_arrays(Squares(50), 0, 10, levels=2402, binarise="dynamic")
    assert isinstance(dataset.train, data.DynamicBinarisation)
    assert isinstance(dataset.test, data.CompactDataset)
    assert set(whole(dataset).unique().tolist()) == {0.0, 1.0}
    with pytest.raises(data.DataError, match=r"'probabilities' must lie in \[0, 1\]"):
        data.from_arrays(Squares(50), 0, 0, binarise="dynamic").train[:]


def test_large_discrete_arrays_stay_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = torch.arange(256).reshape(64, 4)
    small = data.from_arrays(bytes_, seed=5)
    monkeypatch.setattr("pyro_lvm.data.arrays.LARGE", 1000)
    large = data.from_arrays(bytes_, seed=5)
    assert isinstance(large.train, data.CompactDataset)
    assert large.train.values.dtype == torch.uint8
    for key, split in small.splits.items():
        assert torch.equal(split[:], large.splits[key][:])
        assert large.splits[key][:].dtype == torch.float32
        assert large.splits[key].shape == split.shape
    drawn = data.from_arrays(bytes_, seed=5, binarise="static")
    assert torch.equal(whole(drawn), whole(data.from_arrays(bytes_.float(), seed=5, levels=256, binarise="static")))
    assert isinstance(data.from_arrays(RAMP.repeat(20, 1)).train, Tensor)  # real values have no smaller form
    with pytest.raises(data.DataError, match=r"'values' must be of dtype torch\.uint8"):
        data.CompactDataset(bytes_)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield torch.zeros(2)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[1.0, np.nan]]), r"'train' must be finite, but train\[0, 1\] is nan"),
        (np.array([[1.0, np.inf]]), r"'train' must be finite, but train\[0, 1\] is inf"),
        (np.array([[1e300]] * 9), r"'train' must fit into float32, but reaches 1e\+300"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[None]]), "dtype object"),
        (np.array([[1j]]), "dtype complex128"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype datetime64"),
        ([[1, 2], [3]], "rows differ in length"),
        (torch.zeros(2, 2, dtype=torch.complex64), r"dtype torch\.complex64"),
        (torch.eye(2).to_sparse(), "dense tensor"),
        (np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]), "without holes"),
        (np.zeros((0, 3)), r"at least one number, but has shape \(0, 3\)"),
        (np.zeros((3, 0)), r"at least one number, but has shape \(3, 0\)"),
        (np.float64(3.0), "'train' must be an array of examples"),
        (np.array(3), "single number 3"),
        (None, "'train' must be an array of examples, but is None"),
        (Squares(0), "empty torch Dataset"),
        (Squares(9, torch.zeros(5)), r"example 3 has shape \(5,\) and example 0 has \(2, 3\)"),
        (Endless(), "map-style"),
        ({"a": 1}, "dtype object"),
    ],
    # Not `str`: a Dataset's has its address, and two test processes must agree on names.
    ids=lambda value: type(value).__name__ if isinstance(value, TorchDataset) else str(value),
)
def test_refused(array: Any, words: str) -> None:
    with pytest.raises(data.DataError, match=words) as caught:
        data.from_arrays(array)
    assert "\n" not in str(caught.value)
    assert "'train'" in str(caught.value)


def test_dict_items_are_refused() -> None:
    class Dicts(Squares):
        def __getitem__(self, i: int) -> Any:
            return {"x": torch.zeros(2)}

    with pytest.raises(data.DataError, match="but holds dicts"):
        data.from_arrays(Dicts(3))


def test_misfits_are_refused() -> None:
    with pytest.raises(data.DataError, match=r"'test' must hold examples of shape \(2,\) as 'train' does, .* \(3,\)"):
        data.from_arrays(RAMP, test=torch.zeros(4, 3))
    with pytest.raises(data.DataError, match=r"'labels' must have shape \(20,\)"):
        data.from_arrays(RAMP, labels=torch.arange(19))
    with pytest.raises(data.DataError, match=r"'labels' must be whole numbers, but has dtype torch\.float64"):
        data.from_arrays(RAMP, labels=torch.zeros(20))
    with pytest.raises(data.DataError, match="10 for 'validation' and 10 for 'test' leave none"):
        data.from_arrays(RAMP, 10, 10)
    with pytest.raises(data.DataError, match="'validation' must leave some of the 20 examples"):
        data.from_arrays(RAMP, 20)
    with pytest.raises(data.DataError, match=r"'test' must hold examples"):
        data.Dataset("x", train=RAMP, test=torch.zeros(3))


@pytest.mark.parametrize("size", [1, 2])
def test_too_few_to_split(size: int) -> None:
    with pytest.raises(data.DataError, match="smaller"):
        data.from_arrays(RAMP[:size])
    assert len(data.from_arrays(RAMP[:size], 0, 0).train) == size


def test_one_number_per_example() -> None:
    dataset = data.load(np.arange(10.0))
    assert dataset.shape == ()
    assert dataset.train.shape == (8,)


def test_dataset_is_frozen() -> None:
    dataset = data.from_arrays(RAMP)
    with pytest.raises(AttributeError):
        dataset.name = "other"  # type: ignore[misc]
