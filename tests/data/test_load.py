"""Data sets by name: embedded, real files beside the checkout, and small stand-ins in torchvision's layouts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from pyro_lvm import data

ROOT = Path(__file__).parents[2].parent / "shared" / "data"


def real(path: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (ROOT / path).exists(), reason=f"no {path} in the data folder beside the checkout")


def test_digits() -> None:
    dataset = data.load("digits")
    images = torch.from_numpy(load_digits().images)
    assert repr(dataset) == "Dataset('digits', train=1000, validation=350, test=447, shape=(8, 8), levels=17)"
    assert torch.equal(torch.cat([split[:] for split in dataset.splits.values()]).double(), images)
    assert torch.cat(list(dataset.labels.values())).tolist() == load_digits().target.tolist()
    assert list(dataset.labels) == ["train", "validation", "test"]
    for split in dataset.splits.values():
        assert isinstance(split, Tensor)
        assert split.dtype == torch.float32  # although the default is float64 here
        data.check_levels(split, 17, "digits")
    assert dataset.description
    assert dataset.source


@pytest.mark.parametrize("validation", [0, 100, 0.1])
def test_validation_size_is_in_the_name(validation: float) -> None:
    dataset = data.load("digits", validation=validation)
    count = data.check_size(validation, 1350, "validation")
    assert dataset.name == f"digits-{1350 - count}"
    assert len(dataset.train) == 1350 - count
    assert (dataset.validation is None) == (count == 0)
    assert torch.equal(dataset.splits["test"][:], data.load("digits").splits["test"][:])


@pytest.mark.parametrize("variant", ["static", "dynamic", "threshold"])
def test_names_of_variants(variant: Any) -> None:
    by_name, by_argument = data.load(f"digits-{variant}"), data.load("digits", binarise=variant)
    assert by_name.name == by_argument.name == f"digits-{variant}"
    assert by_name.description == by_argument.description != data.load("digits").description
    assert torch.equal(by_name.splits["test"][:], by_argument.splits["test"][:])


def test_unknown_names() -> None:
    with pytest.raises(
        data.DataError, match=r"'data' must be one of 'cifar10', .* or a path .*: did you mean 'digits'\?"
    ):
        data.load("digit")
    with pytest.raises(data.DataError, match="'test' and 'levels' must be left out for 'digits'"):
        data.load("digits", test=100)
    with pytest.raises(data.DataError, match="'test' and 'levels' must be left out for 'digits'"):
        data.load("digits", levels=16)
    with pytest.raises(data.DataError, match="'validation' must leave some of the 1350"):
        data.load("digits", validation=1350)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "omniglot", "cifar10"])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=r"PYRO_LVM_DATA.*download=True") as caught:
        data.load(name, root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing is fetched or made without being asked for


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = torchvision_datasets()

    def download(self: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with pytest.raises(data.DataError, match=r"could not be downloaded \(no route to host\)"):
        data.load("mnist", root=tmp_path, download=True)


def test_malformed_files(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, "MNIST", 20, 5)
    images = folder / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(data.DataError, match=r"'mnist' must have its files in .* cannot be read \(.*delete them"):
        data.load("mnist", root=tmp_path)


def test_data_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYRO_LVM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.data_root() == tmp_path / "pyro-lvm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.data_root() == Path.home() / ".cache" / "pyro-lvm"
    monkeypatch.setenv("PYRO_LVM_DATA", "~/elsewhere")
    assert data.data_root() == Path.home() / "elsewhere"
    assert data.data_root(tmp_path) == tmp_path


def torchvision_datasets() -> Any:
    data.declare_missing_operators()
    from torchvision import datasets

    return datasets


def write_mnist(root: Path, name: str, train: int, test: int) -> Path:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for part, size in (("train", train), ("t10k", test)):
        x = np.random.default_rng(size).integers(0, 256, (size, 28, 28), dtype=np.uint8)
        header = np.array([0x803, size, 28, 28], dtype=">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        header = np.array([0x801, size], dtype=">i4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + (np.arange(size) % 10).astype(np.uint8).tobytes())
    return folder


def test_fashion_mnist_in_small(tmp_path: Path) -> None:
    write_mnist(tmp_path, "FashionMNIST", 20, 5)
    dataset = data.load("fashion-mnist", root=tmp_path, validation=4)
    assert [len(split) for split in dataset.splits.values()] == [16, 4, 5]
    x = np.random.default_rng(20).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    assert torch.equal(torch.cat([dataset.train[:], dataset.splits["validation"][:]]), torch.from_numpy(x).float())
    assert dataset.labels["validation"].tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("large", [False, True])
def test_cifar10_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    cifar = torchvision_datasets().CIFAR10
    monkeypatch.setattr(cifar, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": None})
    if large:
        monkeypatch.setattr("pyro_lvm.data.named.LARGE", 0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    files = [name for name, _ in cifar.train_list + cifar.test_list]
    for i, name in enumerate(files):
        batch = {"data": x[2 * i : 2 * i + 2].reshape(2, -1), "labels": [2 * i, 2 * i + 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abc")}))
    dataset = data.load("cifar10", root=tmp_path, validation=2)
    assert isinstance(dataset.train, data.CompactDataset if large else Tensor)
    assert torch.equal(torch.cat([split[:] for split in dataset.splits.values()]), torch.from_numpy(x).float())
    assert dataset.train[torch.tensor([0])].dtype == torch.float32
    assert torch.cat(list(dataset.labels.values())).tolist() == list(range(12))
    assert (dataset.name, dataset.levels, dataset.shape) == ("cifar10-8", 256, (3, 32, 32))


def test_omniglot_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_datasets().Omniglot, "_check_integrity", lambda self: True)
    for half, ink in (("images_background", 0), ("images_evaluation", 255)):
        for character in range(3):
            folder = tmp_path / "omniglot-py" / half / "Alphabet" / f"character{character}"
            folder.mkdir(parents=True)
            for drawer in range(2):
                drawing = np.full((105, 105), 255 - ink, dtype=np.uint8)
                drawing[:60, :60] = ink
                Image.fromarray(drawing).convert("1").save(folder / f"{drawer}.png")
    dataset = data.load("omniglot", root=tmp_path, validation=2)
    assert (dataset.name, dataset.shape, dataset.levels) == ("omniglot-28-4", (28, 28), 256)
    x = dataset.train[0]
    assert x.unique().tolist() == [0.0, 255.0]  # 60 of 105 pixels are exactly 16 of 28
    assert x[:16, :16].min() == 255
    assert x.sum() == 255 * 16**2  # ink is what black was in the file
    assert sorted(dataset.labels["train"].tolist() + dataset.labels["validation"].tolist()) == [0, 0, 1, 1, 2, 2]


def test_downsample_keeps_the_mean_and_agrees_with_pooling() -> None:
    x = torch.rand(5, 2, 105, 105)
    assert torch.allclose(data.downsample(x, 28).double().mean((-1, -2)), x.mean((-1, -2)), atol=1e-6)  # float32 sums
    pooled = torch.nn.functional.avg_pool2d(x.flatten(0, 1)[:, None], 5)[:, 0].reshape(5, 2, 21, 21)
    assert torch.allclose(data.downsample(x, 21).double(), pooled, atol=1e-6)
    assert torch.equal(data.downsample(x, 105), x.float())
    for bad in (torch.zeros(3, 4), torch.zeros(7), torch.zeros(2, 20, 20)):
        with pytest.raises(data.DataError, match="'images' must be square"):
            data.downsample(bad, 28)


@pytest.fixture(scope="module")
def mnist() -> data.Dataset:
    return data.load("mnist", root=ROOT)


@real("MNIST/raw/train-images-idx3-ubyte")
def test_mnist(mnist: data.Dataset) -> None:
    assert repr(mnist) == "Dataset('mnist', train=50000, validation=10000, test=10000, shape=(28, 28), levels=256)"
    # Known of the files: mean 33.3184 and labels that start 5, 0, 4, 1, 9 (train) and 7, 2, 1, 0, 4 (test).
    both = torch.cat([mnist.train[:], mnist.splits["validation"][:]])
    assert both.dtype == torch.float32
    assert float(both.mean(dtype=torch.float64)) == pytest.approx(33.318421, abs=1e-6)
    assert mnist.labels["train"][:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.labels["test"][:5].tolist() == [7, 2, 1, 0, 4]
    assert {key: len(labels) for key, labels in mnist.labels.items()} == {
        "train": 50_000,
        "validation": 10_000,
        "test": 10_000,
    }


@real("MNIST/raw/train-images-idx3-ubyte")
def test_mnist_dynamic(mnist: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_LVM_DATA", str(ROOT))
    published, split = data.load("mnist-dynamic"), data.load("mnist-dynamic", validation=10_000)
    assert (published.name, len(published.train), published.validation) == ("mnist-dynamic", 60_000, None)
    assert (split.name, len(split.train), len(split.splits["validation"])) == ("mnist-dynamic-50000", 50_000, 10_000)
    assert torch.equal(published.splits["test"][:], split.splits["test"][:])
    p = mnist.splits["test"][:] / 255
    x = published.splits["test"][:]
    # The expected number of ones, within 5 standard deviations of a sum of independent Bernoullis.
    p64 = p.double()
    assert (x.double().sum() - p64.sum()).abs() < 5 * (p64 * (1 - p64)).sum().sqrt()
    assert x[p == 0].sum() == 0
    assert x[p == 1].min() == 1
    index = torch.randint(60_000, (128,))
    assert published.train[index].shape == (128, 28, 28)


@real("fashion/fashion_train_first3615.npz")
def test_real_npz() -> None:
    dataset = data.load("fashion/fashion_train_first3615.npz", root=ROOT)
    assert [len(split) for split in dataset.splits.values()] == [2891, 362, 362]
    assert (dataset.shape, dataset.levels) == ((28, 28), 256)
    assert sorted(dataset.labels["test"].unique().tolist()) == list(range(10))


@real("faces/freyfaces.npy")
def test_real_npy() -> None:
    dataset = data.load(ROOT / "faces" / "freyfaces.npy", validation=200, test=0.1)
    assert [len(split) for split in dataset.splits.values()] == [1569, 200, 196]
    assert (dataset.name, dataset.shape, dataset.levels, dataset.labels) == ("freyfaces", (28, 20), 256, {})


@real("omniglot/images_evaluation.npz")
def test_real_drawings_stay_bytes() -> None:
    dataset = data.load(ROOT / "omniglot" / "images_evaluation.npz")
    assert isinstance(dataset.train, data.CompactDataset)
    assert (dataset.shape, dataset.levels) == ((105, 105), 2)
    assert sum(len(split) for split in dataset.splits.values()) == 659 * 20
    assert dataset.train[:7].unique().tolist() == [0.0, 1.0]
    assert len(dataset.labels["test"]) == 1318
    assert data.downsample(dataset.train[:7], 28).shape == (7, 28, 28)
