"""Digits of a class of your choice: one diffusion, and how strongly it is drawn towards the class.

A diffusion of digits and their labels learns what a class looks like, and, as a tenth of the labels is left out, what
any digit looks like. At sampling the difference of the two is laid on with a weight w. What that does is told by a
classifier that has seen real digits only: how many draws it takes for the class asked for. Beside it, how much the
draws of a class differ. A minute and a half on two cores.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from sklearn.svm import SVC

import pyro_lvm as lvm
from pyro_lvm import data, diffusion, guides, likelihoods, models, networks, objectives
from pyro_lvm.diagnostics import plot_samples

WEIGHTS = (-1.0, 0.0, 1.0, 3.0)  # no condition, the condition alone, and more than that


def main(epochs: int | None = None, draws: int = 50, folder: str | Path = "runs") -> dict[float, tuple[float, float]]:
    """Trains, draws and judges; the number of epochs is the command line's if left out."""
    if epochs is None:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--epochs", type=int, default=200)
        epochs = parser.parse_args().epochs
    dataset = data.load("digits")
    labelled, real = data.with_labels(dataset, unknown=0.1), dataset.train[:].flatten(1)
    judge = SVC().fit(real.numpy(), dataset.labels["train"].numpy())
    torch.manual_seed(0)
    condition, schedule = diffusion.Label((8, 8), classes=10), diffusion.CosineSchedule(200)
    process = diffusion.ForwardProcess((8, 8), schedule, 200, centre=8.0, spread=8.0)
    net = networks.TimeMLP((8, 8), condition_shape=condition.shape)
    reverse = diffusion.Reverse(net, (8, 8), schedule, diffusion.Velocity(), diffusion.SmallVariance())
    decoder = likelihoods.DiscretizedNormal(process, reverse, 17)
    model = models.Diffusion(process, reverse, decoder, condition)
    guide = guides.SubsampledDiffusion(process, condition)
    settings = {"objective": objectives.SimpleDenoising(), "batch_size": 100, "weight_average": 0.999}
    lvm.fit(model, guide, labelled.train, epochs=epochs, learning_rate=2e-3, **settings)

    wanted, found = torch.arange(10).repeat(draws), {}
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    for place, w in enumerate(WEIGHTS, 1):
        guided = models.Diffusion(process, diffusion.guided(reverse, w), decoder, condition)
        x = diffusion.DDIM(50)(guided, len(wanted), given=condition.of(wanted)).flatten(1)
        accuracy = float((torch.from_numpy(judge.predict(x.numpy())) == wanted).double().mean())
        spread = float(torch.stack([x[wanted == k].var(0).sum() for k in range(10)]).mean() ** 0.5)
        found[w] = accuracy, spread
        print(f"w = {w:4.1f}: {accuracy:6.1%} taken for the digit asked for, spread within a digit {spread:.1f} greys")
        ax = plot_samples(x[:60].unflatten(1, (8, 8)), levels=17, columns=10, ax=figure.add_subplot(1, 4, place))
        ax.set_title(f"w = {w:g}: {accuracy:.0%}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(folder) / "guided_digits.png", dpi=110)
    return found


if __name__ == "__main__":
    main()
