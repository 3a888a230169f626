"""What stands on docs/gallery.md: the pairs its plots are of, and for each plot the code that makes it.

A plot more is an entry more in `SNIPPETS`; `python -m benchmarks.gallery` then runs it, draws it and writes the page.
"""

from dataclasses import dataclass

# Run first; `epochs` is what a test makes small.
SETUP = """\
import torch
import pyro_lvm as lvm
from pyro_lvm import data, diagnostics, diffusion, models, zoo
from pyro_lvm.diagnostics import paths

digits = data.load("digits")
x, labels = digits.test, digits.labels["test"]
epochs = 60


def trained(name, epochs=epochs, **options):
    model, guide, recipe = zoo.build(name, digits, seed=0, **options)
    settings = recipe.training | {"epochs": epochs}
    settings["objective"], settings["validation"] = recipe.objective, digits.validation
    result = lvm.fit(model, guide, digits.train, seed=0, **settings)
    return model, guide, result.history


model, guide, history = trained("vae")
plane, plane_guide, _ = trained("vae", latent_dim=2)
sphere, sphere_guide, _ = trained("vae-vmf", latent_dim=3)
levels, levels_guide, levels_history = trained("hvae-top-down")
codes, codes_guide, _ = trained("vae-discrete")
diffused, _, _ = trained("vdm", epochs=5 * epochs)
"""


@dataclass(frozen=True)
class Snippet:
    """A plot of the gallery.

    Attributes:
        name: the function's, and with it the picture's.
        group: the heading it stands under; those of one group stand together.
        text: what it shows, one sentence or two; read out where the picture cannot be seen.
        code: leaves the axes, or a tuple of them, in `ax`; what it prints is shown below it.
    """

    name: str
    group: str
    text: str
    code: str


SNIPPETS = (
    Snippet(
        "plot_history",
        "Training",
        "The bound on training and validation data by epoch.",
        "ax = diagnostics.plot_history(history)",
    ),
    Snippet(
        "plot_kl",
        "Training",
        "How far each latent's posterior is from its prior; at 0 the latent has collapsed, as the lower one does here.",
        "ax = diagnostics.plot_kl(levels_history)",
    ),
    Snippet(
        "plot_samples",
        "Data and draws",
        "Draws from the model, in the greys of the data.",
        "ax = diagnostics.plot_samples(model.sample(40), levels=17, columns=10)",
    ),
    Snippet(
        "plot_reconstructions",
        "Data and draws",
        "Data, and below each a draw of p(x | z) at a draw of q(z | x).",
        """\
with torch.no_grad():
    again = model.decoder(guide(x[:20])).sample()
ax = diagnostics.plot_reconstructions(x[:20], again, levels=17)""",
    ),
    Snippet(
        "plot_levels",
        "Data and draws",
        "Draws from a hierarchy whose rows share the uppermost latent: it decides what is alike along a "
        "row, the latents below decide what differs.",
        "ax = diagnostics.plot_levels(levels, held=1, rows=4, columns=10, levels=17, seed=0)",
    ),
    Snippet(
        "plot_diffusion",
        "Data and draws",
        "How draws of a diffusion come out of noise, from left to right.",
        """\
times, latents = diffusion.DDIM(50, eta=1.0).path(diffused, 4)
ax = diagnostics.plot_diffusion(times, latents)""",
    ),
    Snippet(
        "plot_latent",
        "Latents",
        "Draws of q(z | x) by label, on the two principal axes where there are more than two units.",
        """\
with torch.no_grad():
    ax = diagnostics.plot_latent(guide(x), labels)""",
    ),
    Snippet(
        "plot_prior",
        "Latents",
        "The aggregated posterior, draws of q(z | x) for many data, over the prior: a dark region without points is a "
        "hole.",
        """\
with torch.no_grad():
    ax = diagnostics.plot_prior(plane.prior, plane_guide(x), labels)""",
    ),
    Snippet(
        "plot_sphere",
        "Latents",
        "Latents on a sphere, half of it in each view.",
        """\
with torch.no_grad():
    ax = diagnostics.plot_sphere(sphere_guide(x), labels)""",
    ),
    Snippet(
        "plot_code",
        "Latents",
        "How often each category of each variable of a discrete code is used; a row of one bright cell has collapsed.",
        """\
with torch.no_grad():
    ax = diagnostics.plot_code(codes_guide(x))""",
    ),
    Snippet(
        "plot_traversals",
        "Moves in the latent space",
        "What one datum becomes as one unit at a time moves across its prior, the most active units first.",
        "ax = diagnostics.plot_traversals(model, guide, x, rows=6, levels=17, seed=0)",
    ),
    Snippet(
        "plot_interpolation",
        "Moves in the latent space",
        "The way from one datum to another, along great circles of the latents.",
        "ax = diagnostics.plot_interpolation(model, guide, x[:5], x[20:25], path=paths.spherical, levels=17)",
    ),
    Snippet(
        "plot_attribute",
        "Moves in the latent space",
        "Threes to which the difference between eights and threes is added, and how often a classifier of pixels "
        "then sees an eight.",
        """\
y = digits.labels["train"]
here, there = (y == 3) | (y == 8), (labels == 3) | (labels == 8)
success = diagnostics.attribute_success(model, guide, digits.train[here], y[here] == 8, x[there], labels[there] == 8)
print(success)
ax = diagnostics.plot_attribute(model, guide, x[labels == 3][:5], success.vector, levels=17)""",
    ),
    Snippet(
        "plot_manifold",
        "Moves in the latent space",
        "What two latents are decoded to, at quantiles of their prior.",
        "ax = diagnostics.plot_manifold(plane, plane_guide, x, size=15, levels=17)",
    ),
)
