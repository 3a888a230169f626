"""Every check names the argument, what was expected, what was given and the fix, in one sentence."""

import pytest
import torch

from pyro_lvm import data


def test_finite_names_first_offender() -> None:
    x = torch.zeros(4, 2, 3)
    data.check_finite(x, "train")
    x[2, 1, 0] = float("-inf")
    x[3, 0, 0] = float("nan")
    with pytest.raises(data.DataError, match=r"^'train' must be finite, but train\[2, 1, 0\] is -inf: "):
        data.check_finite(x, "train")
    data.check_finite(torch.arange(3), "whole numbers are finite")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.int8])
def test_levels_names_first_offender(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 16], [3, 4]], dtype=dtype)
    data.check_levels(x, 17, "x")
    with pytest.raises(data.DataError, match=r"'x' must hold whole numbers from 0 to 15, but x\[0, 1\] is 16"):
        data.check_levels(x, 16, "x")


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.0, float("nan"), float("inf")])
def test_levels_outside_the_support(value: float) -> None:
    with pytest.raises(data.DataError, match=r"x\[1\] is "):
        data.check_levels(torch.tensor([1.0, value]), 2, "x")


def test_levels_of_a_scalar_and_of_booleans() -> None:
    data.check_levels(torch.tensor([True, False]), 2, "x")
    with pytest.raises(data.DataError, match=r"but x is 3\.0"):
        data.check_levels(torch.tensor(3.0), 2, "x")


@pytest.mark.parametrize("levels", [1, 0, -3, 2.0, True, 2**24 + 1, "17"])
def test_levels_themselves(levels: int) -> None:
    with pytest.raises(data.DataError, match="'levels' must be a whole number from 2"):
        data.check_levels(torch.zeros(1), levels, "x")


def test_levels_are_exact_in_float32_up_to_the_limit() -> None:
    x = torch.tensor([2.0**24 - 1], dtype=torch.float32)
    data.check_levels(x, 2**24, "x")


def test_empty() -> None:
    data.check_not_empty(torch.zeros(1), "x")
    with pytest.raises(data.DataError, match=r"has shape \(3, 0\)"):
        data.check_not_empty(torch.zeros(3, 0), "x")
    with pytest.raises(data.DataError, match=r"is the single number 2\.0"):
        data.check_not_empty(torch.tensor(2.0), "x")


def test_labels() -> None:
    data.check_labels(torch.arange(3), 3, "labels")
    with pytest.raises(data.DataError, match=r"shape \(4,\), one label per example, but has shape \(3,\)"):
        data.check_labels(torch.arange(3), 4, "labels")
    with pytest.raises(data.DataError, match=r"whole numbers, but has dtype torch\.float64"):
        data.check_labels(torch.zeros(3), 3, "labels")


def test_choice_offers_the_nearest() -> None:
    data.check_choice("b", ["a", "b"], "letter")
    with pytest.raises(data.DataError, match="did you mean 'mnist'"):
        data.check_choice("mnits", data.names(), "name")
    with pytest.raises(data.DataError, match=r"'xyz'$"):
        data.check_choice("xyz", data.names(), "name")


@pytest.mark.parametrize(
    ("size", "count"), [(0, 0), (3, 3), (9, 9), (0.0, 0), (0.5, 5), (0.26, 3), (1e-9, 1)], ids=repr
)
def test_size(size: float, count: int) -> None:
    assert data.check_size(size, 10, "validation") == count


@pytest.mark.parametrize("size", [10, 11, -1, 1.0, -0.1, 0.999, float("nan"), True, "3", None])
def test_size_refused(size: float) -> None:
    with pytest.raises(data.DataError, match="'validation' must"):
        data.check_size(size, 10, "validation")


def test_errors_are_value_errors() -> None:
    assert issubclass(data.DataError, ValueError)
