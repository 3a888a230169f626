"""MNIST's digits of zeros and ones, or something of their shape."""

import torch
from torch import Tensor

from benchmarks.problem import Problem
from pyro_lvm import data

VAE = Problem(features=784, hidden=400, latent_dim=20, batch=128, steps=100)


def train(problem: Problem = VAE) -> tuple[Tensor, str]:
    """As many training digits as the problem has, (N, 784), and what they are."""
    return _digits("train", problem.steps * problem.batch, problem)


def test(number: int) -> tuple[Tensor, str]:
    """Test digits, (number, 784), and what they are."""
    return _digits("test", number, VAE.with_(batch=number, steps=1))


def _digits(part: str, number: int, problem: Problem) -> tuple[Tensor, str]:
    try:
        dataset = data.load("mnist-static")
    except data.DataError:  # not on this machine
        return problem.synthetic(), "random zeros and ones of MNIST's shape"
    x = dataset.train if part == "train" else dataset.test
    return torch.as_tensor(x[:number]).flatten(1), "MNIST's digits, binarised"
