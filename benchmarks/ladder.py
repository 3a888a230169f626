"""The convolutional ladder on 28 by 28 digits: the time of a step against the number of levels, and of an epoch.

    PYRO_LVM_DATA=folder python -m benchmarks.ladder [--data mnist] [--steps 5] [--epoch]

Without --epoch, an epoch of 60,000 is the time of a step times their number, and the table says so.
"""

import argparse
import time
from statistics import median
from typing import Any

import torch

import pyro_lvm as lvm
from pyro_lvm import data, zoo

BATCH = 64
PER_SIZE = (1, 2, 3, 4, 6)  # levels of 14 by 14 maps, and as many of 7 by 7


def step_seconds(dataset: data.Dataset, levels_per_size: tuple[int, ...], steps: int) -> tuple[int, list[float]]:
    """The parameters of the pair, and the seconds of single steps of training, after one that warms up."""
    model, guide, recipe = zoo.build("ladder-conv", dataset, levels_per_size=levels_per_size)
    parameters = list({id(p): p for part in (model, guide) for p in part.parameters()}.values())
    optimizer, seconds = torch.optim.Adam(parameters, 1e-3), []
    for x in dataset.train[: BATCH * (steps + 1)].split(BATCH):
        start = time.perf_counter()
        optimizer.zero_grad()
        recipe.objective.differentiable_loss(model, guide, x).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return sum(p.numel() for p in parameters), seconds[1:]


def epoch(dataset: data.Dataset) -> Any:
    """The history's row of one epoch of the recipe."""
    model, guide, recipe = zoo.build("ladder-conv", dataset)
    training = {**recipe.training, "epochs": 1, "early_stopping": None}
    result = lvm.fit(model, guide, dataset.train, objective=recipe.objective, **training)
    return result.history[-1]


def binary_pictures() -> data.Dataset:
    """Pictures of the size of MNIST's made of the digits, where MNIST is not at hand."""
    large = torch.nn.functional.interpolate(data.load("digits").train[:, None].float(), (28, 28), mode="bilinear")
    return data.from_arrays((large[:, 0] > 8).to(torch.uint8), levels=2, name="digits of 28 by 28")


def main() -> None:
    """Prints the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", default="", help="a data set of 28 by 28 pictures, binarised; enlarged digits without"
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--epoch", action="store_true", help="train for a whole epoch")
    options = parser.parse_args()
    dataset = data.load(options.data, binarise="static") if options.data else binary_pictures()
    print(f"{dataset.name}, {len(dataset.train)} pictures, batches of {BATCH}, {torch.get_num_threads()} threads\n")
    print("| levels | parameters | seconds a step, median | fastest | a level | an epoch of 60,000, extrapolated |")
    print("|---|---|---|---|---|---|")
    for number in PER_SIZE:
        parameters, seconds = step_seconds(dataset, (number, number), options.steps)
        typical = median(seconds)
        print(
            f"| {2 * number} | {parameters:,} | {typical:.3f} | {min(seconds):.3f} | {typical / (2 * number):.4f} "
            f"| {typical * 60_000 / BATCH / 60:.1f} min |",
            flush=True,
        )
    if options.epoch:
        start = time.perf_counter()
        row = epoch(dataset)
        seconds = time.perf_counter() - start
        print(
            f"\nan epoch of {len(dataset.train)}: {seconds:.0f} s, bound {row['train']:.1f} nats a picture on average"
        )


if __name__ == "__main__":
    main()
