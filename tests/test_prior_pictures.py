"""Priors drawn: contours hold the mass they say, and the example runs."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyro_lvm import networks, posteriors, priors
from pyro_lvm.diagnostics.prior_contours import _SHARES, plot_prior

EXAMPLE = Path(__file__).parents[1] / "examples" / "priors_side_by_side.py"


def contours(ax: Axes) -> list[np.ndarray]:
    """The lines, from the widest to the narrowest, each as its points."""
    lines = [c for c in ax.collections if hasattr(c, "levels") and not c.filled]
    return [np.concatenate([path.vertices for path in line.get_paths()]) for line in lines]


def test_contours_of_a_normal_hold_the_shares_they_say() -> None:
    ax = plot_prior(priors.StandardNormal(2))
    lines = contours(ax)
    assert len(lines) == len(_SHARES)
    for share, line in zip(_SHARES, lines, strict=True):
        # A circle of radius √(−2 log(1 − share)); a cell of the grid is 0.04 wide, and its edge holds 2 % of the mass.
        np.testing.assert_allclose(np.hypot(*line.T), (-2 * np.log(1 - share)) ** 0.5, atol=0.05)


def test_axes_are_not_swapped() -> None:
    prior = priors.MixtureOfGaussians(2, components=1)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[5.0, -2.0]]))
        prior.log_scales.copy_(torch.tensor([[1.0, 0.2]]).log())
    widest = contours(plot_prior(prior))[0]
    np.testing.assert_allclose(widest.mean(0), [5.0, -2.0], atol=0.1)
    np.testing.assert_allclose(np.ptp(widest, 0), [2 * 3.03, 0.4 * 3.03], atol=0.1)  # √(−2 log 0.01) = 3.03


def test_draws_lie_over_the_prior_and_inside_the_frame() -> None:
    z = torch.randn(40, 2) + torch.tensor([8.0, 0.0])
    ax = plot_prior(priors.StandardNormal(2), z, torch.arange(40) % 3)
    offsets = np.concatenate([c.get_offsets() for c in ax.collections if not hasattr(c, "levels")])
    np.testing.assert_allclose(np.sort(offsets[:, 0]), np.sort(z[:, 0].numpy()))
    assert ax.get_xlim()[0] < -2.5
    assert ax.get_xlim()[1] > z[:, 0].max()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]
    assert ax.get_xlabel().startswith("z₁")
    assert ax.get_ylabel().startswith("z₂")


def test_nothing_is_left_changed() -> None:
    prior = priors.Resampled(2)
    state = torch.get_rng_state()
    ax = plot_prior(prior, ax=Figure().add_subplot())
    assert torch.equal(torch.get_rng_state(), state)
    assert prior.training
    assert prior.net.training
    assert len(contours(ax)) == len(_SHARES)


def test_a_prior_of_single_precision_is_drawn() -> None:
    posterior = posteriors.DiagonalNormal(networks.MLP((2, 3), 4, (5,)))
    prior = priors.VampPrior(posterior, (2, 3), components=6).float()
    assert contours(plot_prior(prior, torch.randn(5, 2)))


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match=r"'prior' must be over two latents .* \(3,\)"):
        plot_prior(priors.StandardNormal(3))
    with pytest.raises(ValueError, match=r"'z' must hold draws of two latents, \(N, 2\), .* \(4, 3\)"):
        plot_prior(priors.StandardNormal(2), torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"'labels' must be one for each draw in 'z', .* \(3,\)"):
        plot_prior(priors.StandardNormal(2), torch.zeros(4, 2), torch.zeros(3))


def test_example_draws_every_prior(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spec = importlib.util.spec_from_file_location("example_priors", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.set_default_dtype(torch.float32)
    try:
        found = module.main(epochs=1, folder=tmp_path)
    finally:
        torch.set_default_dtype(torch.float64)
    uniform = -64 * np.log(2)  # each pixel a fair coin
    assert list(found) == list(module.PRIORS)
    assert all(uniform < value < 0 for value in found.values())
    assert f"{'GTM':20} test log-likelihood {found['GTM']:.2f} nats" in capsys.readouterr().out
    assert (tmp_path / "priors_side_by_side.png").read_bytes().startswith(b"\x89PNG")
