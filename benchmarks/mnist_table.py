"""The priors and posteriors of the zoo on MNIST, with one budget for all: a table of docs/priors_and_posteriors.md.

    PYRO_LVM_DATA=... python -m benchmarks.mnist_table [--epochs 20] [--runs runs/mnist] [--render] [names ...]

MNIST with pixels drawn anew at every use, 60,000 digits for training and one fixed draw of the 10,000 for test;
gated networks 300-300, 40 latents. Some minutes an entry on 2 cores. A run that was stopped goes on where it was, and
what the record holds already is not done again.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pyro_lvm as lvm
from benchmarks.marks import fill
from pyro_lvm import data, objectives, posteriors, priors, zoo
from pyro_lvm.data.dataset import Dataset
from pyro_lvm.zoo.recipe_parts import Networks

ROOT = Path(__file__).parent.parent
RECORD, PAGE = ROOT / "docs" / "mnist_table.json", ROOT / "docs" / "priors_and_posteriors.md"
REFERENCE = "vae"
PRIORS = ["vae-mog", "vae-vamp", "vae-gtm", "vae-gtm-vamp", "vae-flow-prior", "vae-ar-prior", "vae-lars"]
POSTERIORS = [
    "vae-full-normal",
    "vae-householder",
    "vae-sylvester-o",
    "vae-sylvester-h",
    "vae-sylvester-t",
    "vae-planar",
    "vae-iaf",
    "vae-vmf",
    "vae-power-spherical",
    "vae-auxiliary",
    "vae-semi-amortised",
    "vae-hmc",
]
NETWORKS: dict[str, Any] = {"latent_dim": 40, "hidden_features": (300, 300), "activation": "gated"}
WARM_UP = 5  # epochs in which the divergence comes to its full weight, for all
TRAINING: dict[str, Any] = {"batch_size": 128, "learning_rate": 1e-3}


def measure(name: str, epochs: int, seed: int, particles: int, runs: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Trains one entry, from where it was, and judges it on the test digits, also against the reference's record."""
    dataset = data.load("mnist", binarise="dynamic")
    model, guide = pair(name, dataset, seed)
    result = lvm.fit(
        model,
        guide,
        dataset.train,
        objective=objectives.ELBO(analytic_kl=True, beta=objectives.Linear(0.0, 1.0, WARM_UP)),
        seed=seed,
        epochs=epochs,
        run_dir=runs / f"{name}-{seed}",
        resume=(runs / f"{name}-{seed}").exists(),
        **TRAINING,
    )
    start = time.perf_counter()
    x = torch.as_tensor(dataset.test[:])
    ll = lvm.log_likelihood(model, guide, x, particles, seed=0)
    row = {
        "epochs": epochs,
        "seed": seed,
        "particles": particles,
        "train": result.history["train"][-1],
        "seconds": result.seconds,
        "evaluation_seconds": time.perf_counter() - start,
        "log_likelihood": float(ll.mean),
        "sampling_error": float(ll.sampling_error),
        "monte_carlo_error": float(ll.mean_standard_error),
        "share_of_high_khat": float((ll.khat > 0.7).double().mean()),
    }
    if name == REFERENCE:
        return row | {"of_data": [round(value, 3) for value in ll.tolist()]}
    difference = ll.double() - torch.tensor(record[REFERENCE]["of_data"], dtype=torch.float64)
    return row | {"against": [float(difference.mean()), float(difference.std()) / math.sqrt(len(difference))]}


def pair(name: str, dataset: Dataset, seed: int) -> tuple[nn.Module, nn.Module]:
    """An entry with the networks that all have."""
    if name != REFERENCE:
        model, guide, _ = zoo.build(name, dataset, seed=seed, **NETWORKS)
        return model, guide
    torch.manual_seed(seed)
    networks = Networks(dataset, **NETWORKS)  # the recipe itself knows no gates
    latent_dim = NETWORKS["latent_dim"]
    made = networks.made(priors.StandardNormal(latent_dim), posteriors.DiagonalNormal(networks.encoder(2 * latent_dim)))
    return made.model, made.guide


def table(record: dict[str, Any]) -> str:
    """The record as Markdown: differences are of the same digits, and their errors those of the mean difference."""
    lines = [
        "| entry | epochs | bound in training | test log-likelihood | against `vae` | k-hat above 0.7 |",
        "|---|---|---|---|---|---|",
    ]
    for name in (REFERENCE, *PRIORS, *POSTERIORS):
        if name not in record:
            continue
        row, against = record[name], "–"
        if name != REFERENCE:
            against = "{:+.2f} ± {:.2f}".format(*row["against"])
        lines.append(
            f"| `{name}` | {row['epochs']} | {row['train']:.2f} | {row['log_likelihood']:.2f} ± "
            f"{row['sampling_error']:.2f} | {against} | {100 * row['share_of_high_khat']:.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures what is missing, and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="entries; all where left out")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("runs/mnist"), help="folder for the runs")
    parser.add_argument("--output", type=Path, default=RECORD, help="JSON file of all measurements")
    parser.add_argument("--render", action="store_true", help="write the table into the docs")
    options = parser.parse_args()
    for name in dict.fromkeys((REFERENCE, *(options.names or (*PRIORS, *POSTERIORS)))):
        record = read(options.output)
        if record.get(name, {}).get("epochs") == options.epochs:
            continue
        row = measure(name, options.epochs, options.seed, options.particles, options.runs, record)
        # Read again: another process may be at work on other entries.
        options.output.write_text(json.dumps(read(options.output) | {name: row}) + "\n")
        print(f"{name}: {row['log_likelihood']:.2f}, {row['seconds']:.0f} s", flush=True)
    text = table(read(options.output))
    print(text)
    if options.render:
        fill(PAGE, "mnist", text)


def read(path: Path) -> dict[str, Any]:
    """The record, by entry."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


if __name__ == "__main__":
    main()
