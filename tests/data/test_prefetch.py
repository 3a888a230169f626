"""Batches read ahead are the batches, and the thread that reads them is gone when they are done with."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_lvm import data
from pyro_lvm.data.dataset import Index, IndexedDataset

N = 103


@pytest.fixture
def mapped(tmp_path: Path) -> data.MappedDataset:
    np.save(tmp_path / "rows.npy", np.arange(N * 4, dtype="f4").reshape(N, 4))
    return data.MappedDataset(tmp_path / "rows.npy")


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pyro-lvm-reader")]


class Watched(IndexedDataset):
    """Notes on which thread, and when, which rows are read."""

    def __init__(self, ahead: bool, fails_at: int | None = None) -> None:
        self.ahead, self.fails_at, self.reads = ahead, fails_at, list[tuple[str, int]]()
        self.may_read = threading.Event()
        self.may_read.set()

    @property
    def shape(self) -> torch.Size:
        return torch.Size([N, 2])

    @property
    def reads_ahead(self) -> bool:
        return self.ahead

    def __getitem__(self, index: Index) -> Tensor:
        assert isinstance(index, Tensor)
        self.may_read.wait(10)
        self.reads.append((threading.current_thread().name, int(index[0])))
        if index[0] == self.fails_at:
            raise data.DataError(f"'rows' is broken at {int(index[0])}")
        return index.float()[:, None].expand(-1, 2)

    def subset(self, index: slice | Tensor) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("size", [1, 10, 50, 103, 500])
def test_batches_are_those_of_a_loop(mapped: data.MappedDataset, size: int) -> None:
    order = torch.randperm(N)
    bytes_ = data.CompactDataset(torch.arange(N, dtype=torch.uint8)[:, None])
    for split in (mapped, mapped[:], bytes_):
        with data.batches(split, order.split(size)) as parts:
            for rows, x in zip(order.split(size), parts, strict=True):
                assert torch.equal(x, split[rows])
                assert len(readers()) == (split is mapped)
        assert readers() == []
    with data.batches(mapped, []) as parts:
        assert list(parts) == []


def test_the_next_batch_is_read_during_the_step() -> None:
    split = Watched(ahead=True)
    with data.batches(split, torch.arange(N).split(10)) as parts:
        next(parts)
        for _ in range(1000):
            if len(split.reads) == 3:
                break
            time.sleep(0.01)
        assert [row for _, row in split.reads] == [0, 10, 20]  # and no further
        assert len(readers()) == 1
        assert all(name.startswith("pyro-lvm-reader") for name, _ in split.reads)
        next(parts)
    assert readers() == []


def test_what_is_not_read_ahead_is_read_in_its_turn_on_the_same_thread() -> None:
    split = Watched(ahead=False)
    with data.batches(split, torch.arange(N).split(10)) as parts:
        for i, _ in enumerate(parts):
            assert split.reads == [(threading.current_thread().name, 10 * j) for j in range(i + 1)]
        assert readers() == []


def test_dynamic_pixels_are_drawn_between_the_draws_of_the_steps(mapped: data.MappedDataset) -> None:
    for p in (mapped[:] / 500, mapped.derive(divisor=500)):
        split = data.DynamicBinarisation(p)
        torch.manual_seed(0)
        by_hand = [(split[rows], torch.rand(3)) for rows in torch.arange(N).split(20)]
        torch.manual_seed(0)
        with data.batches(split, torch.arange(N).split(20)) as parts:
            found = [(x, torch.rand(3)) for x in parts]
        for (x, u), (y, v) in zip(by_hand, found, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(u, v)


def test_reading_ahead_leaves_the_random_state_alone(mapped: data.MappedDataset) -> None:
    state = torch.get_rng_state()
    with data.batches(mapped, torch.arange(N).split(7)) as parts:
        list(parts)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_comes_at_its_turn_and_ends_the_thread() -> None:
    done: list[int] = []
    with (
        pytest.raises(data.DataError, match="broken at 30"),
        data.batches(Watched(True, 30), torch.arange(N).split(10)) as p,
    ):
        done.extend(int(x[0, 0]) for x in p)
    assert done == [0, 10, 20]
    assert readers() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_fails_ends_the_thread(mapped: data.MappedDataset, error: type[BaseException]) -> None:
    with pytest.raises(error) as kept, data.batches(mapped, torch.arange(N).split(10)) as parts:  # noqa: PT012
        for i, _ in enumerate(parts):
            if i == 2:
                raise error
    assert readers() == []  # also while the exception, and with it the frame, is kept
    assert kept.value is not None


def test_one_who_leaves_early_does_not_wait_for_what_has_not_begun() -> None:
    split = Watched(ahead=True)
    with data.batches(split, torch.arange(N).split(10)) as parts:
        next(parts)
        split.may_read.clear()
        threading.Timer(0.1, split.may_read.set).start()
    assert readers() == []
    assert len(split.reads) <= 3
