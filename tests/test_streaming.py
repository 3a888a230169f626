"""Training on a file that is larger than memory may grow: the same weights as in memory, and errors before it begins.

`pytest tests/test_streaming.py -m slow -s` prints how many rows a second are read.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, posteriors, priors

N, D = 300, 6


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.data.mapped.LARGE", 100)


def vae(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    decoder = likelihoods.Bernoulli(networks.MLP(2, D, (8,)))
    encoder = posteriors.DiagonalNormal(networks.MLP(D, 4, (8,)))
    return models.VAE(priors.StandardNormal(2), decoder), guides.Amortized(encoder)


def ppca(features: int = D) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return models.ProbabilisticPCA(features, latent_dim=2), guides.LinearNormal(features, latent_dim=2)


def weights(pair: tuple[Any, Any]) -> list[Tensor]:
    return [parameter.detach().clone() for program in pair for parameter in program.parameters()]


def save(path: Path, array: np.ndarray[Any, Any]) -> Path:
    np.save(path, array)
    return path


# Memory

MIB = 2**20
BOUND, SIZE = 256 * MIB, 520 * MIB

WITHIN = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
import pyro_lvm as lvm
from pyro_lvm import data, guides, models

torch.set_num_threads(1)
path, small, bound = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def run(dataset):
    model, guide = models.ProbabilisticPCA(512, latent_dim=2), guides.LinearNormal(512, latent_dim=2)
    result = lvm.fit(model, guide, dataset.train, validation=dataset.validation, epochs=1, batch_size=4096)
    return result, lvm.log_likelihood(model, guide, dataset.test[:1000], num_particles=30)

# Libraries and the stacks of threads take address space, which is not what is bounded here.
whole = data.MappedDataset(small)
run(data.Dataset("small", train=whole, validation=whole, test=whole))

size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + bound, size + bound))
dataset = data.load(path)
result, ll = run(dataset)
print(len(dataset.train), len(ll), bool(ll.isfinite().all()), result.history[-1]["train"] < 0)
np.load(path)
"""


@pytest.fixture
def large_file(tmp_path: Path) -> Iterator[Path]:
    """Rows of 512 numbers, zeros but for some, which take no room on most disks."""
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (SIZE // 2048, 512))
    array[::1000] = np.random.default_rng(0).standard_normal(512)
    del array
    yield path
    path.unlink()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits on address space are Linux's")
@pytest.mark.slow
def test_a_file_larger_than_the_memory_there_is(large_file: Path, tmp_path: Path) -> None:
    small = save(tmp_path / "small.npy", np.random.default_rng(0).standard_normal((5000, 512)).astype("f4"))
    assert large_file.stat().st_size > 2 * BOUND

    argv = [sys.executable, "-W", "ignore", "-c", WITHIN, str(large_file), str(small), str(BOUND)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    rows = SIZE // 2048
    assert done.stdout.split() == [str(rows - 2 * round(rows / 10)), "1000", "True", "True"], done.stderr
    assert "MemoryError" in done.stderr.splitlines()[-1], done.stderr  # by what is loaded whole
    assert done.returncode == 1


# The same as in memory


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_weights_and_history_are_those_of_memory(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).standard_normal((N, D)).astype(dtype)
    path = save(tmp_path / "rows.npy", array)
    memory = torch.from_numpy(array.astype("f4"))
    found = []
    for x in (memory, path, str(path), np.load(path, mmap_mode="r"), data.MappedDataset(path)):
        pair = ppca()
        result = lvm.fit(*pair, x, validation=x, epochs=3, batch_size=64, seed=5)
        found.append((weights(pair), [{**row, "seconds": 0} for row in result.history]))
    for one, history in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one, found[0][0], strict=True))
        assert history == found[0][1]


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("binarise", ["dynamic", "static"])
def test_weights_of_drawn_pixels_are_those_of_memory(tmp_path: Path, binarise: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, (N, D), dtype=np.uint8)
    found = []
    for source in (array, save(tmp_path / "rows.npy", array)):
        dataset, pair = data.load(source, binarise=binarise), vae()
        lvm.fit(*pair, dataset.train, validation=dataset.validation, epochs=2, batch_size=50)
        found.append(weights(pair))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("everything_is_large")
def test_what_takes_tensors_takes_files(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((N, D)).astype("f4")
    path, pair = save(tmp_path / "rows.npy", array), ppca()
    estimates = [
        lvm.log_likelihood(*pair, x, num_particles=20, seed=0)
        for x in (torch.from_numpy(array), path, np.load(path, mmap_mode="r"))  # type: ignore[arg-type]
    ]
    assert torch.equal(estimates[0], estimates[1])
    assert torch.equal(estimates[0], estimates[2])


# Errors


@pytest.mark.usefixtures("everything_is_large")
def test_a_bad_row_is_named_before_training(tmp_path: Path) -> None:
    array = np.zeros((130_000, D), np.float32)
    array[123_456, 4] = np.nan
    pair = vae()
    before = weights(pair)
    with pytest.raises(data.DataError, match=r"'bad.npy' must be finite, but bad.npy\[123456, 4\] is nan"):
        lvm.fit(*pair, save(tmp_path / "bad.npy", array), epochs=1)
    array[123_456, 4] = 3
    with pytest.raises(
        data.DataError, match=r"'data' holds 3 at \[123456, 4\], outside the support .* zeros and ones: choose"
    ):
        lvm.fit(*pair, save(tmp_path / "bad.npy", array), epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(pair), strict=True))


@pytest.mark.usefixtures("everything_is_large")
def test_a_file_that_is_cut_off_meanwhile_stops_the_run_with_its_last_good_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.npy", np.zeros((N, D), np.float32))
    pair, seen = ppca(), []

    def cut(row: dict[str, float]) -> None:
        seen.append(weights(pair))
        os.truncate(path, 1000)

    with pytest.raises(data.DataError, match="must stay as it is while in use, but had 7328 bytes and now has 1000"):
        lvm.fit(*pair, path, epochs=3, on_epoch=cut)
    assert all(torch.equal(a, b) for a, b in zip(seen[0], weights(pair), strict=True))


def test_paths_that_hold_no_one_array(tmp_path: Path) -> None:
    with pytest.raises(
        data.DataError, match=r"'data' must be an array or the path .* 'digits': give data.load\('digit"
    ):
        lvm.fit(*ppca(), "digits")
    np.savez(tmp_path / "splits.npz", train=np.zeros((9, D)), test=np.zeros((3, D)))
    with pytest.raises(data.DataError, match=r"'data' must be one array, but '.*' holds train, test: choose with data"):
        lvm.fit(*ppca(), tmp_path / "splits.npz")
    with pytest.raises(data.DataError, match=r"absent.npy' must be a file, but there is none"):
        lvm.fit(*ppca(), tmp_path / "absent.npy")


@pytest.mark.usefixtures("everything_is_large")
def test_a_run_goes_on_with_the_same_rows_wherever_they_lie_and_with_no_others(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((N, D)).astype("f4")
    one, two = (save(tmp_path / f"{name}.npy", array) for name in ("one", "two"))
    array[-1] += 1
    other = save(tmp_path / "other.npy", array)
    lvm.fit(*ppca(), one, epochs=1, run_dir=tmp_path / "run")
    assert len(lvm.fit(*ppca(), two, epochs=2, run_dir=tmp_path / "run", resume=True).history) == 2
    with pytest.raises(ValueError, match=rf"'data' is {N} of shape \({D},\), checksum \w+, but {N} of shape"):
        lvm.fit(*ppca(), other, epochs=3, run_dir=tmp_path / "run", resume=True)


# Speed


@pytest.mark.slow
def test_rows_per_second(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size, path = 1_000_000, tmp_path / "bytes.npy"
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (size, 784))
    for start in range(0, size, 50_000):
        array[start : start + 50_000] = np.random.default_rng(start).integers(0, 256, (50_000, 784), dtype=np.uint8)
    array.flush()
    del array
    split = data.MappedDataset(path)
    orders = {"in order": torch.arange(size), "shuffled": torch.randperm(size)}
    lines = []
    for cached in (False, True):
        for name, order in orders.items():
            for batch_size, count in ((64, 200), (1024, 40)):
                if not cached:
                    forget(path)
                start = time.perf_counter()
                with data.batches(split, order[: count * batch_size].split(batch_size)) as parts:
                    total = sum(len(x) for x in parts)
                rate = total / (time.perf_counter() - start)
                place = "from memory" if cached else "from disk"
                lines.append(
                    f"{place}, {name}, {batch_size} rows a batch: {rate:,.0f} rows/s, {rate * 784 / 1e6:,.0f} MB/s"
                )
                assert total == count * batch_size
        np.fromfile(path, np.uint8)  # into the cache
    start = time.perf_counter()
    assert split.infer_levels() == 256
    lines.append(f"levels of {size:,} rows: {time.perf_counter() - start:.3f} s")
    with capsys.disabled():
        print("", *lines, sep="\n")


def forget(path: Path) -> None:
    """Have the system read the file from its disk again."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
