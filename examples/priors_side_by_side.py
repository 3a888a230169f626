"""What a prior can do for a variational autoencoder: eight of them with two latents, side by side.

Trains one pair for each on the binarised 8x8 digits; encoder and decoder are alike. About a minute on one core, less
with --epochs 10. Prints test log-likelihoods, from 200 draws for each datum, and saves runs/priors_side_by_side.png:
the prior's density in grey, draws of q(z | x) for the test data over it, coloured by digit. With 60 epochs they lie
within half a nat, the neural spline flow ahead.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.diagnostics.prior_contours import plot_prior

PRIORS = {  # given the posterior that some of them share with the guide
    "standard normal": lambda posterior: priors.StandardNormal(2),
    "mixture of Gaussians": lambda posterior: priors.MixtureOfGaussians(2, components=20),
    "VampPrior": lambda posterior: priors.VampPrior(posterior, (8, 8), components=100),
    "GTM": lambda posterior: priors.GTM(2, points=8),
    "GTM-Vamp": lambda posterior: priors.GTMVamp(posterior, (8, 8), points=8),
    "neural spline flow": lambda posterior: priors.Flow(2, "neural_spline"),
    "autoregressive": lambda posterior: priors.Autoregressive(2, components=10),
    "resampled": lambda posterior: priors.Resampled(2),
}


def main(epochs: int | None = None, folder: str | Path = "runs") -> dict[str, float]:
    """Trains, prints nats per datum and saves the picture; the number of epochs is the command line's if left out."""
    if epochs is None:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--epochs", type=int, default=60)
        epochs = parser.parse_args().epochs
    dataset, found = data.load("digits", binarise="static"), {}
    figure = Figure(figsize=(15, 7.6), layout="constrained")
    for place, (name, prior) in enumerate(PRIORS.items(), 1):
        torch.manual_seed(0)
        posterior = posteriors.DiagonalNormal(networks.MLP((8, 8), 4, (128,)))
        model = models.VAE(prior(posterior), likelihoods.Bernoulli(networks.MLP(2, (8, 8), (128, 128))))
        guide = guides.Amortized(posterior)
        lvm.fit(model, guide, dataset.train, epochs=epochs, batch_size=100, learning_rate=3e-3)
        found[name] = lvm.log_likelihood(model, guide, dataset.test, 200, seed=0).mean()
        print(f"{name:20} test log-likelihood {found[name]:.2f} nats per datum")
        with torch.no_grad():
            z = posterior(dataset.test).sample()
        ax = plot_prior(model.prior, z, dataset.labels["test"], ax=figure.add_subplot(2, 4, place))
        ax.set(title=f"{name}: {found[name]:.1f} nats", xlabel="z₁", ylabel="z₂")
        ax.get_legend().set_visible(place == 4)  # one for all
    Path(folder).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(folder) / "priors_side_by_side.png", dpi=110)
    return found


if __name__ == "__main__":
    main()
