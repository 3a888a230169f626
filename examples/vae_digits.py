"""A variational autoencoder from the zoo: build, train, judge, draw.

The recipe knows the networks, the objective and the training settings for a data set; training stops when the bound on
the validation data no longer rises. The test data are judged by the log-likelihood from 1,000 importance samples each.

About 15 s on 2 cores. Prints the test log-likelihood, -93.09 nats per datum, and saves runs/vae_digits.png. Half of
the data have a k-hat above 0.7: their estimates are rough, and too low in expectation.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

import pyro_lvm as lvm
from pyro_lvm import data, zoo


def main(epochs: int | None = None, num_particles: int = 1000, folder: str | Path = "runs") -> dict[str, float]:
    """Trains for the recipe's number of epochs or fewer, prints nats per datum and saves the picture."""
    dataset = data.load("digits")
    model, guide, recipe = zoo.build("vae", dataset, latent_dim=16)
    settings = dict(recipe.training) | ({} if epochs is None else {"epochs": epochs})
    result = lvm.fit(model, guide, dataset.train, objective=recipe.objective, validation=dataset.validation, **settings)
    best = result.history[result.best_epoch - 1]
    print(f"best of {len(result.history)} epochs: {result.best_epoch}, {result.seconds:.0f} s")
    print(f"validation ELBO {best['validation']:.2f} nats per datum, KL {best['kl_z']:.2f}")
    ll = lvm.log_likelihood(model, guide, dataset.test, num_particles=num_particles, seed=0)
    print(f"test log-likelihood {ll.mean():.2f} nats per datum, {ll.bits_per_dimension:.3f} bits per pixel")
    print(f"± {ll.mean_standard_error:.2f} by estimation (k-hat > 0.7 for {(ll.khat > 0.7).sum()} of {len(ll)} data)")
    print(f"± {ll.sampling_error:.2f} by the choice of test data")
    torch.manual_seed(0)
    Path(folder).mkdir(parents=True, exist_ok=True)
    picture(dataset.test[:32], model.sample(32)).savefig(Path(folder) / "vae_digits.png", dpi=120)
    return {"validation": best["validation"], "log_likelihood": ll.mean().item()}


def picture(x: torch.Tensor, drawn: torch.Tensor) -> Figure:
    """Data on the left, draws from the model on the right, each a 4 x 8 grid of images."""
    figure = Figure(figsize=(8.4, 2.4), layout="constrained")
    for axes, title, images in zip(figure.subplots(1, 2), ("test data", "draws"), (x, drawn), strict=True):
        framed = torch.nn.functional.pad(images, (1, 1, 1, 1))  # (32, 10, 10)
        grid = framed.reshape(4, 8, 10, 10).transpose(1, 2).reshape(40, 80).numpy()
        axes.imshow(grid, cmap="gray_r", vmin=0, vmax=16)
        axes.set(title=title, xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    main()
