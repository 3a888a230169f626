"""Splits whose rows lie in a file: every row as numpy would load it, and errors that name what is wrong."""

import pickle
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_lvm import data
from pyro_lvm.data.arrays import as_split
from pyro_lvm.data.npy import NpyFile

TYPES = ["?", "u1", "i1", "<u2", ">u2", "<i4", ">i8", "<u8", "<f2", "<f4", ">f4", "<f8", ">f8", "g"]
N = 120


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_lvm.data.mapped.LARGE", 100)


def values(dtype: str = "<f4", *shape: int) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(0).integers(0, 120, (N, *(shape or (2, 3))))
    return (drawn % 2 if dtype == "?" else drawn).astype(dtype)


def saved(tmp_path: Path, array: np.ndarray[Any, Any]) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, array)
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "file": lambda path: path,
    "memmap": lambda path: np.load(path, mmap_mode="r"),
    "written to": lambda path: np.load(path, mmap_mode="c"),
    "view": lambda path: np.asarray(np.load(path, mmap_mode="r"))[:],
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_those_of_the_array(tmp_path: Path, dtype: str, source: Callable[[Path], Any]) -> None:
    array = values(dtype)
    split = data.MappedDataset(source(saved(tmp_path, array)))
    whole = torch.from_numpy(array.astype("f4"))
    shuffled = torch.randperm(N)
    for index in (
        slice(None),
        slice(5, 90, 7),
        slice(-3, None),
        shuffled,
        shuffled[:7],
        torch.tensor([4, 4, 0, 5, 6, 4]),
        [3, -1],
        7,
        -2,
        torch.tensor([], dtype=torch.int64),
        torch.arange(N) % 3 == 0,
    ):
        batch = split[index]
        assert batch.dtype == torch.float32
        assert torch.equal(batch, whole[index])
    assert torch.equal(torch.cat(list(DataLoader(split, batch_size=50))), whole)
    assert (split.shape, len(split), repr(split)) == (whole.shape, N, f"MappedDataset({N}, 2, 3)")
    with pytest.raises(IndexError):
        split[N]


@pytest.mark.parametrize("shape", [(N,), (N, 1), (1, 200), (30, 2, 2, 2)], ids=str)
def test_any_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    split = data.load(saved(tmp_path, array), validation=0, test=0).train
    assert isinstance(split, data.MappedDataset)
    assert torch.equal(split[:], torch.from_numpy(array)[split.index])
    assert torch.equal(split[0], torch.from_numpy(array)[split.index[0]])


def test_only_the_rows_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values("u1", 16)
    path = saved(tmp_path, array)
    split, reads = data.MappedDataset(path), []
    fill = "pyro_lvm.data.npy._fill"
    from pyro_lvm.data.npy import _fill

    def counted(view: memoryview, file: Any) -> None:
        reads.append((file.tell() - 128, len(view)))
        _fill(view, file)

    monkeypatch.setattr(fill, counted)
    split[torch.tensor([9, 3, 4, 5, 90])]
    assert reads == [(3 * 16, 3 * 16), (9 * 16, 16), (90 * 16, 16)]  # in the file's order, neighbours at once
    del reads[:]
    split[10:100]
    assert reads == [(160, 90 * 16)]


def test_splits_are_the_in_memory_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values("u1")
    path = saved(tmp_path, array)
    large = data.load(path, validation=0.25, test=11, seed=3)
    mapped = data.from_arrays(np.load(path, mmap_mode="r"), 0.25, 11, labels=np.arange(N), seed=3)
    small = data.from_arrays(array, 0.25, 11, labels=np.arange(N), seed=3)
    assert (large.name, large.source) == ("rows", str(path))
    for key, split in small.splits.items():
        assert isinstance(split, Tensor)
        for streamed in (large.splits[key], mapped.splits[key]):
            assert isinstance(streamed, data.MappedDataset)
            assert torch.equal(streamed[:], split)
        assert torch.equal(mapped.labels[key], small.labels[key])
    indices = torch.cat([split.index for split in large.splits.values() if isinstance(split, data.MappedDataset)])
    assert indices.sort().values.tolist() == list(range(N))  # each row once
    assert torch.equal(large.train.subset(slice(2, 5))[:], large.train[2:5])  # type: ignore[operator, union-attr]
    assert large.levels == mapped.levels == small.levels == 256


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", ">i8", "<f4"])
@pytest.mark.parametrize("high", [1, 9, 16, 17, 90, 255, 256, -1])
@pytest.mark.parametrize("first", [1, 20])
def test_levels_are_those_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, high: int, first: int
) -> None:
    monkeypatch.setattr("pyro_lvm.data.mapped.rows_at_once", lambda shape: 7)
    array = (values("<i8") % 2).astype(dtype)
    array[0, 0, 0] = first
    if dtype in ("?", "u1") and not 0 <= high < 256:
        return
    array[-1, -1, -1] = high
    assert data.load(saved(tmp_path, array)).levels == data.from_arrays(array).levels


def test_small_files_are_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, values())
    monkeypatch.setattr("pyro_lvm.data.mapped.LARGE", N * 6 * 4)
    assert isinstance(data.load(path).train, Tensor)
    assert isinstance(data.load(np.load(path, mmap_mode="r")).train, Tensor)
    monkeypatch.setattr("pyro_lvm.data.mapped.LARGE", N * 6 * 4 - 1)
    assert isinstance(data.load(path).train, data.MappedDataset)
    assert isinstance(data.load(np.load(path)).train, Tensor)  # in memory already
    for source in (path, str(path), np.load(path, mmap_mode="r"), data.MappedDataset(path)):
        assert isinstance(as_split(source, "data"), data.MappedDataset)
        assert isinstance(data.load(source).train, data.MappedDataset)
    assert isinstance(as_split(np.load(path), "data"), Tensor)


@pytest.mark.parametrize("source", list(SOURCES.values())[:2], ids=list(SOURCES)[:2])
@pytest.mark.parametrize(
    ("dtype", "value", "levels", "words"),
    [
        ("<f4", np.nan, None, r"must be finite, but \w+(\.npy)?\[97, 1, 2\] is nan: fill in or drop"),
        (">f8", -np.inf, None, r"must be finite, but \w+(\.npy)?\[97, 1, 2\] is -inf"),
        ("<f8", 1e300, None, r"must fit into float32, but reaches 1e\+300: rescale it"),
        ("<f4", np.nan, 256, r"must be finite, but \w+(\.npy)?\[97, 1, 2\] is nan"),
        ("<f4", 3.5, 256, r"must hold whole numbers from 0 to 255, but \w+(\.npy)?\[97, 1, 2\] is 3.5"),
        ("u1", 200, 130, r"must hold whole numbers from 0 to 129, but \w+(\.npy)?\[97, 1, 2\] is 200"),
        ("<i8", -1, 256, r"must hold whole numbers from 0 to 255, but \w+(\.npy)?\[97, 1, 2\] is -1"),
    ],
)
def test_bad_values_are_named_by_their_row(
    tmp_path: Path, dtype: str, value: float, levels: int | None, words: str, source: Callable[[Path], Any]
) -> None:
    array = values(dtype)
    array[97, 1, 2] = value
    train = data.load(source(saved(tmp_path, array)), validation=0, test=0, levels=levels).train
    assert isinstance(train, data.MappedDataset)
    bad = int((train.index == 97).nonzero())
    train[[i for i in range(N) if i != bad]]
    for index in (slice(None), bad, torch.randperm(N)):
        with pytest.raises(data.DataError, match=words) as caught:
            train[index]
        assert "\n" not in str(caught.value)


def test_levels_are_checked_at_load(tmp_path: Path) -> None:
    for levels in (1, "many", 2**30):
        with pytest.raises(
            data.DataError, match=f"'levels' must be a whole number from 2 to 16777216, but is {levels!r}"
        ):
            data.load(saved(tmp_path, values()), levels=levels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.asfortranarray(values()), r"one example after the other \(C order\), but is in Fortran order: save numpy"),
        (values().astype(complex), "must hold real numbers, but has dtype complex128: convert it"),
        (np.full((N, 9), "text"), "must hold real numbers, but has dtype <U4"),
        (np.full((N, 9), np.datetime64("2020-01-01")), "must hold real numbers, but has dtype datetime64"),
        (np.zeros((N, 9), "f4,i4"), "must hold real numbers, but has dtype"),
    ],
    ids=["Fortran", "complex", "text", "time", "table"],
)
def test_refused(tmp_path: Path, array: np.ndarray[Any, Any], words: str) -> None:
    path = saved(tmp_path, array)
    for load in (data.load, data.MappedDataset):
        with pytest.raises(data.DataError, match=words) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert "'" in str(caught.value).split("must")[0]


def test_a_version_that_tables_alone_have_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        path = saved(tmp_path, np.zeros((N, 9), [("高さ", "f4")]))
    with pytest.raises(data.DataError, match=r"its version \(3, 0\) is for tables with named columns"):
        data.load(path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.float64(3.0), r"'rows.npy' must have shape \(N, \*shape\), but is a single number"),
        (np.zeros((0, 3)), r"'rows.npy' must hold at least one number, but has shape \(0, 3\)"),
        (np.zeros((3, 0)), r"'rows.npy' must hold at least one number, but has shape \(3, 0\)"),
        (np.array([None] * 200), "must hold numbers, but holds Python objects: save arrays of a numeric dtype"),
    ],
    ids=["one number", "no rows", "no columns", "objects"],
)
def test_refused_as_rows(tmp_path: Path, array: Any, words: str) -> None:
    path = saved(tmp_path, array)
    with pytest.raises(data.DataError, match=words):
        data.MappedDataset(path)
    with pytest.raises(data.DataError):
        data.load(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.mkdir, (tmp_path / "sprung",)

    path = saved(tmp_path, np.array([Trap()] * 200, dtype=object))
    for load in (data.load, data.MappedDataset, NpyFile):
        with pytest.raises(data.DataError, match="holds Python objects: save arrays of a numeric dtype"):
            load(path)
    assert not (tmp_path / "sprung").exists()


def test_a_memmap_in_fortran_order_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, np.asfortranarray(values("f4", 4)))
    with pytest.raises(data.DataError, match=r"'train' must hold one example after the other"):
        data.load(np.load(path, mmap_mode="r"))


@pytest.mark.parametrize("keep", [0, 5, 60, 128, 129, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path, values())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(data.DataError, match=r"must be a whole \.npy file, but is malformed") as caught:
        data.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path, values())
    split = data.load(path).train
    split[:5]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(data.DataError, match=r"must stay as it is while in use, but had \d+ bytes and now has \d+"):
        split[:5]
    path.unlink()
    with pytest.raises(data.DataError, match=r"rows.npy' must be a file, but there is none: check the path"):
        split[:5]


def test_other_folders_and_processes_find_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = values()
    saved(tmp_path, array)
    monkeypatch.chdir(tmp_path)
    split = data.MappedDataset("rows.npy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for found in (split, pickle.loads(pickle.dumps(split))):
        assert torch.equal(found[:], torch.from_numpy(array))
    loader = DataLoader(split, batch_size=40, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), torch.from_numpy(array))


def test_threads_share_a_split(tmp_path: Path) -> None:
    array = values()
    split, wrong = data.MappedDataset(saved(tmp_path, array)), []

    def read(seed: int) -> None:
        for _ in range(50):
            rows = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
            wrong.extend([] if torch.equal(split[rows], torch.from_numpy(array)[rows]) else [seed])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("binarise", ["static", "dynamic", "threshold"])
@pytest.mark.parametrize("compact", [False, True])
def test_binarised_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binarise: Any, compact: bool) -> None:
    array = values("u1")
    monkeypatch.setattr("pyro_lvm.data.binarisation.LARGE", 100 if compact else 10**9)
    monkeypatch.setattr("pyro_lvm.data.binarisation.rows_at_once", lambda shape: 7)
    streamed = data.load(saved(tmp_path, array), validation=20, test=9, binarise=binarise)
    memory = data.from_arrays(array, 20, 9, binarise=binarise, name="rows")
    assert (streamed.name, streamed.levels) == (memory.name, 2)
    for key, split in memory.splits.items():
        found = []
        for each in (split, streamed.splits[key]):
            torch.manual_seed(1)
            found.append(each[torch.arange(len(each)).flip(0)])
        assert torch.equal(*found)
    if binarise == "dynamic":
        assert isinstance(streamed.train, data.DynamicBinarisation)
        assert isinstance(streamed.train.probabilities, data.MappedDataset)
        fixed = data.load(saved(tmp_path, array), validation=20, test=9, binarise="static")
        for key in ("validation", "test"):  # of which no more than these are drawn
            assert torch.equal(streamed.splits[key][:], fixed.splits[key][:])


def test_real_values_outside_0_1_are_not_binarised(tmp_path: Path) -> None:
    for binarise in ("static", "threshold"):
        with pytest.raises(data.DataError, match=r"must lie in \[0, 1\] to be binarised"):
            data.load(saved(tmp_path, values()), binarise=binarise)  # type: ignore[arg-type]


def test_division_is_that_of_bytes_in_memory(tmp_path: Path) -> None:
    array = np.arange(256, dtype="u1").reshape(128, 2)
    compact = data.CompactDataset(torch.from_numpy(array), divisor=255)
    assert torch.equal(data.MappedDataset(saved(tmp_path, array), divisor=255)[:], compact[:])


def test_an_npz_that_does_not_fit_says_what_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 8 TiB")

    np.savez(tmp_path / "a.npz", train=values())
    monkeypatch.setattr("numpy.lib.format.read_array", too_much)
    monkeypatch.setattr("numpy.lib._format_impl.read_array", too_much)
    with pytest.raises(data.DataError, match=r"a.npz' must fit into memory, but does not .*: save its arrays as .npy"):
        data.load(tmp_path / "a.npz")


# Fingerprints


def test_fingerprints_tell_data_apart_and_not_places(tmp_path: Path) -> None:
    array = values("u1")
    for folder in ("other", "changed", "wider"):
        (tmp_path / folder).mkdir()
    one, two = saved(tmp_path, array), saved(tmp_path / "other", array)
    split = data.MappedDataset(one)
    same = [data.MappedDataset(two), data.MappedDataset(np.load(two, mmap_mode="r")), split.subset(slice(None))]
    assert {data.fingerprint(each) for each in (split, *same)} == {data.fingerprint(split)}
    assert re.fullmatch(rf"{N} of shape \(2, 3\), checksum [0-9a-f]{{8}}", data.fingerprint(split))
    changed = array.copy()
    changed[47, -1, -1] += 1
    different = [
        data.MappedDataset(saved(tmp_path / "changed", changed)),
        data.MappedDataset(saved(tmp_path / "wider", array.astype("<i2"))),
        split.subset(slice(1, None)),
        split.subset(torch.arange(N).flip(0)),
        split.derive(divisor=255),
    ]
    assert len({data.fingerprint(each) for each in (split, *different)}) == len(different) + 1


def test_fingerprints_of_other_splits(tmp_path: Path) -> None:
    x = torch.from_numpy(values("u1"))
    p = x.double() / 255
    pairs = [
        (x, x.clone()),
        (data.CompactDataset(x), data.CompactDataset(x.clone())),
        (data.CompactDataset(x, 255), data.CompactDataset(x.clone(), 255)),
        (data.DynamicBinarisation(p), data.DynamicBinarisation(p.clone())),
    ]
    for a, b in pairs:
        assert data.fingerprint(a) == data.fingerprint(b)
    other = x.clone()
    other[5, 0, 0] ^= 1
    texts = [data.fingerprint(a) for a, _ in pairs]
    texts += [
        data.fingerprint(each) for each in (other, data.CompactDataset(other, 3), data.DynamicBinarisation(p / 2))
    ]
    assert len(set(texts)) == len(texts)
    items = data.StackedDataset(torch.utils.data.TensorDataset(x), value=lambda item: item[0])
    state = torch.get_rng_state()
    assert data.fingerprint(items) == f"{N} of shape (2, 3)"  # whose items may be random, so that none is read
    data.fingerprint(data.DynamicBinarisation(p))
    assert torch.equal(torch.get_rng_state(), state)
