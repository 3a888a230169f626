from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyro_lvm.diagnostics import (
    plot_code,
    plot_diffusion,
    plot_history,
    plot_kl,
    plot_latent,
    plot_reconstructions,
    plot_samples,
)

HISTORY = [
    {"epoch": e, "train": -20.0 + e - 500 * (e == 1), "validation": -21.0 + e, "kl_z_1": 1.0, "kl_z_2": float("nan")}
    for e in range(1, 13)
]


def all_plots() -> list[Any]:
    x = torch.rand(7, 4, 5)
    return [
        plot_history(HISTORY),
        plot_kl(HISTORY),
        plot_samples(x),
        plot_samples(torch.rand(7, 3, 4, 4)),
        plot_samples(torch.rand(7, 1)),
        plot_samples(torch.rand(7, 2)),
        plot_samples(torch.rand(7, 9)),
        plot_reconstructions(x, x),
        plot_reconstructions(torch.rand(7, 3), torch.rand(7, 3)),
        plot_latent(torch.randn(9, 1), torch.arange(9) % 2),
        plot_latent(torch.randn(9, 2)),
        plot_latent(torch.randn(9, 4, 4), torch.arange(9) % 3),
        plot_latent(torch.randn(30, 2), torch.arange(30)),
        plot_latent(torch.randn(30, 2), torch.rand(30)),
        plot_latent(torch.arange(9) % 4, torch.arange(9) % 2),
        plot_code(torch.eye(3)[torch.randint(3, (9, 5))]),
        plot_diffusion(torch.linspace(1, 0, 9), torch.randn(9, 3, 4, 4)),
        plot_diffusion(torch.linspace(1, 0, 9), torch.randn(9, 3, 2)),
    ]


def test_no_global_state_is_touched() -> None:
    before = dict(matplotlib.rcParams)
    plots = all_plots()
    for ax in plots:
        ax.figure.draw_without_rendering()
    assert dict(matplotlib.rcParams) == before
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()


def test_axes_given_are_drawn_into() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    assert plot_history(HISTORY, ax=ax) is ax
    assert plot_samples(torch.rand(4, 3, 3), ax=figure.add_subplot()).figure is figure


def test_axes_have_labels_with_units() -> None:
    for ax in all_plots():
        if ax.images and not ax.get_xlabel():  # pictures, not a map
            assert not ax.axison or all(text.get_text() for text in ax.get_yticklabels())
            continue
        assert ax.get_xlabel()
        assert ax.get_ylabel()
    assert "nats per datum" in plot_history(HISTORY).get_ylabel()
    assert "nats per datum" in plot_kl(HISTORY).get_ylabel()


def test_curves_show_the_numbers_given() -> None:
    lines = {line.get_label(): line for line in plot_history(HISTORY).get_lines()}
    np.testing.assert_allclose(lines["training"].get_ydata(), [row["train"] for row in HISTORY])
    np.testing.assert_allclose(lines["validation"].get_xdata(), range(1, 13))
    kl = plot_kl(HISTORY)
    assert [line.get_label() for line in kl.get_lines()] == ["latent z_1"]  # z_2 has no finite number


def test_first_epochs_far_below_do_not_flatten_the_rest() -> None:
    ax = plot_history(HISTORY)
    assert ax.get_ylim()[0] > -25
    assert "below the frame" in ax.get_xlabel()
    assert "below" not in plot_history(HISTORY[2:]).get_xlabel()


def test_rows_without_validation_and_one_epoch() -> None:
    ax = plot_history([{"epoch": 1, "train": -3.0}])
    assert [line.get_label() for line in ax.get_lines()] == ["training"]
    assert ax.get_lines()[0].get_marker() == "o"


@pytest.mark.parametrize("plot", [plot_history, plot_kl])
@pytest.mark.parametrize("history", [[], [{"epoch": 1.0}], [{"epoch": 1, "train": float("nan"), "kl_z": float("inf")}]])
def test_histories_without_numbers(plot: Any, history: Any) -> None:
    with pytest.raises(ValueError, match="'history' must hold rows"):
        plot(history)


def test_pictures_keep_their_pixels() -> None:
    x = torch.arange(2 * 3 * 4, dtype=torch.float64).reshape(2, 3, 4)
    image = plot_samples(x, levels=24, columns=2).images[0]
    canvas = image.get_array()
    np.testing.assert_array_equal(canvas[1:4, 1:5], x[0])
    np.testing.assert_array_equal(canvas[1:4, 6:10], x[1])
    assert np.ma.getmaskarray(canvas)[:, 5].all()
    assert image.get_interpolation() == "nearest"
    assert image.get_clim() == (0.0, 23.0)


def test_colour_pictures_and_flat_pictures() -> None:
    x = torch.rand(2, 3, 4, 4)
    image = plot_samples(x, limits=(0.0, 1.0), columns=2).images[0]
    np.testing.assert_allclose(image.get_array()[1:5, 1:5], x[0].permute(1, 2, 0))
    flat = plot_samples(x.flatten(1), shape=(3, 4, 4), limits=(0.0, 1.0), columns=2).images[0]
    np.testing.assert_array_equal(flat.get_array(), image.get_array())


def test_reconstructions_stand_below_their_data() -> None:
    x = torch.arange(5.0)[:, None, None].expand(5, 2, 2)
    canvas = plot_reconstructions(x, -x, columns=3).images[0].get_array()
    column = canvas[1::3, 1::3].filled(np.nan)[:4]  # the first pixel of each picture
    np.testing.assert_array_equal(column[:, :3], [[0, 1, 2], [0, -1, -2], [3, 4, np.nan], [-3, -4, np.nan]])


def test_a_projection_says_what_it_shows() -> None:
    z = torch.randn(200, 3) * torch.tensor([10.0, 3.0, 0.1])
    ax = plot_latent(z)
    points = ax.collections[0].get_offsets()
    centred = z - z.mean(0)
    np.testing.assert_allclose(np.abs(points[:, 0]), centred[:, 0].abs(), atol=1.5)
    share = (points.var(0) / z.var(0, correction=0).sum().item() * 100).round()
    assert f"({share[0]:.0f} % of the variance of 3 latents)" in ax.get_xlabel()
    assert "principal axis 2" in ax.get_ylabel()


def test_labels_have_colours_and_markers_of_their_own() -> None:
    ax = plot_latent(torch.randn(40, 2), torch.arange(40) % 10)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [str(i) for i in range(10)]
    colours = {tuple(c.get_facecolor()[0]) for c in ax.collections}
    markers = {c.get_paths()[0].vertices.tobytes() for c in ax.collections}
    assert len(colours) == len(markers) == 10
    twenty = plot_latent(torch.randn(40, 2), torch.arange(40) % 20)
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in twenty.collections}
    assert len(looks) == 20


def test_assignments_are_counted() -> None:
    ax = plot_latent(torch.tensor([0, 0, 2, 2, 2]))
    assert [bar.get_height() for bar in ax.patches] == [2, 0, 3]


def test_dollars_are_not_formulas() -> None:
    ax = plot_kl([{"epoch": 1, "kl_$z^$": 1.0}])
    ax.figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plot_samples(torch.zeros(0, 3)), "at least one datum"),
        (lambda: plot_samples(torch.zeros(2, 5), shape=(2, 3)), "'shape'"),
        (lambda: plot_reconstructions(torch.zeros(2, 5), torch.zeros(2, 4)), "'reconstruction'"),
        (lambda: plot_latent(torch.zeros(2, 5), torch.zeros(3)), "'labels'"),
        (lambda: plot_latent(torch.zeros(0, dtype=torch.long)), "'z'"),
    ],
)
def test_wrong_arguments(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_codes_are_drawn_as_shares() -> None:
    z = torch.eye(3)[torch.tensor([[0, 1], [0, 2], [0, 1], [0, 1]])]  # 4 data, 2 variables, 3 categories
    ax = plot_code(z)
    np.testing.assert_allclose(ax.images[0].get_array(), [[1, 0, 0], [0, 0.75, 0.25]])
    for bad in (torch.rand(4, 2, 3), torch.zeros(4, 3), torch.zeros(0, 2, 3)):
        with pytest.raises(ValueError, match="'z' must hold one-hot codes"):
            plot_code(bad)
