"""Time and peak memory of `log_likelihood`: MNIST's test digits, made binary, under a VAE 784-400-20.

    python benchmarks/evidence_memory.py [--data 10000] [--particles 5000] [--max-mib 256] [--epochs 5] [--device cpu]

Prints seconds, data per second and the peak memory of the whole process: interpreter, libraries, digits and all,
nothing subtracted. The bar is 2 GB. The digits are MNIST's where `PYRO_LVM_DATA` names a folder that holds them, else
random ones of the same shape, which take the same time and memory. The pair is trained for a moment, so that the
weights of the importance sampling are not absurd; time and memory do not depend on it. About 25 minutes on one core
with all the data; time is proportional to data and particles, memory to neither.
"""

import argparse
import resource
import sys
import time

import torch

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, posteriors, priors

BAR = 2e9  # bytes


def digits(number: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Digits to train on and to judge, (N, 28, 28) zeros and ones, and what they are."""
    try:
        dataset = data.load("mnist-static")
        return dataset.train[:10_000], dataset.test[:number], dataset.name
    except data.DataError:
        x = torch.bernoulli(torch.full((number, 28, 28), 0.13))
        return x[:10_000], x, "random digits of MNIST's shape"


def peak_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=int, default=10_000, help="number of digits, 10,000 at most")
    parser.add_argument("--particles", type=int, default=5000, help="draws for each digit")
    parser.add_argument("--max-mib", type=int, default=256, help="bound on a chunk's intermediate values, MiB")
    parser.add_argument("--epochs", type=int, default=5, help="of training beforehand")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    train, test, name = digits(options.data)
    model = models.VAE(priors.StandardNormal(20), likelihoods.Bernoulli(networks.MLP(20, (28, 28), (400,))))
    guide = guides.Amortized(posteriors.DiagonalNormal(networks.MLP((28, 28), 40, (400,))))
    if options.epochs:
        lvm.fit(model, guide, train, epochs=options.epochs, batch_size=100, seed=0, accelerator="cpu")
    model.to(options.device), guide.to(options.device)
    before = peak_bytes()
    start = time.perf_counter()
    ll = lvm.log_likelihood(model, guide, test, options.particles, max_bytes=options.max_mib * 2**20, seed=0)
    seconds = time.perf_counter() - start
    after = peak_bytes()
    print(f"{len(test)} data ({name}), {options.particles} particles, {torch.get_num_threads()} threads: {ll!r}")
    speed = len(test) / seconds
    print(f"{seconds:.1f} s, {speed:.2f} data and {speed * options.particles:.3g} draws per second")
    print(f"peak memory {after / 1e9:.3f} GB ({before / 1e9:.3f} GB before); bar {BAR / 1e9:.0f} GB: ", end="")
    print("passed" if after < BAR else "FAILED")


if __name__ == "__main__":
    main()
