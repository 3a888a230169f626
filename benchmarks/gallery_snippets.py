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
        "How far each latent's posterior is from its prior; at 0 the latent has collapsed.",
        "ax = diagnostics.plot_kl(levels_history)",
    ),
    Snippet(
        "plot_runs",
        "Training",
        "The bound of several runs by epoch, of validation data where there are some.",
        """\
ax = diagnostics.plot_runs({"vae": history, "hvae-top-down": levels_history})""",
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
    Snippet(
        "plot_units",
        "What latents say",
        "The divergence of every unit of every level from its prior, in nats per datum; units at 0 have collapsed.",
        """\
ax = diagnostics.plot_units(diagnostics.unit_divergences(levels, levels_guide, x, seed=0))""",
    ),
    Snippet(
        "plot_surgery",
        "What latents say",
        "What the divergence from the prior is made of: information about the datum, dependence of the units, and how "
        "far each of them is from its prior.",
        """\
surgeries = {"vae": diagnostics.surgery(model, guide, x, seed=0, progress=False)}
surgeries["two units"] = diagnostics.surgery(plane, plane_guide, x, seed=0, progress=False)
ax = diagnostics.plot_surgery(surgeries)""",
    ),
    Snippet(
        "plot_holes",
        "What latents say",
        "Draws from the prior beside the aggregated posterior; those from holes are where next to no datum is encoded.",
        """\
holes = diagnostics.holes(plane, plane_guide, digits.train, seed=0, progress=False)
print(holes)
ax = diagnostics.plot_holes(holes)""",
    ),
    Snippet(
        "plot_plausibility",
        "What latents say",
        "How far data drawn from the model are from the nearest training datum, beside data decoded from posteriors.",
        """\
ax = diagnostics.plot_plausibility(diagnostics.plausibility(model, guide, digits.train, x, seed=0))""",
    ),
    Snippet(
        "plot_out_of_distribution",
        "What latents say",
        "The likelihood of data of the model's own kind and of others, digits upside down; the area under the curve is "
        "the chance that it tells a pair apart.",
        """\
turned = diagnostics.out_of_distribution(model, guide, x[:100], x[:100].flip(1), steps=20, seed=0, progress=False)
print(turned)
ax = diagnostics.plot_out_of_distribution(turned)""",
    ),
    Snippet(
        "plot_prior_posterior",
        "What a posterior is worth",
        "Prior and posterior of a datum's latents, a row a unit; where they are the same, the datum says nothing.",
        """\
draws = diagnostics.posterior(plane, plane_guide, x[:1], seed=0)
ax = diagnostics.plot_prior_posterior(draws, datum=0)""",
    ),
    Snippet(
        "plot_comparison",
        "What a posterior is worth",
        "The guide's posterior of a datum beside that of the no-U-turn sampler, medians with intervals of 50 and 94 %.",
        """\
gold = diagnostics.nuts(plane, x[:1], draws=400, warmup=200, seed=0, progress=False)
ax = diagnostics.plot_comparison(draws, gold, datum=0)""",
    ),
    Snippet(
        "plot_ranks",
        "What a posterior is worth",
        "Ranks of simulated latents among draws of the guide given the data simulated from them, less uniform ranks.",
        """\
ranks = diagnostics.simulation_based_calibration(plane, plane_guide, 300, seed=0, progress=False)
print(ranks)
ax = diagnostics.plot_ranks(ranks)""",
    ),
    Snippet(
        "plot_evidence",
        "What a posterior is worth",
        "The evidence of several models with two standard errors of the estimates, the best at the top.",
        """\
ll = {"vae": lvm.log_likelihood(model, guide, x, 200), "two units": lvm.log_likelihood(plane, plane_guide, x, 200)}
ax = diagnostics.plot_evidence({name: (float(of.mean), float(of.mean_standard_error)) for name, of in ll.items()})""",
    ),
)
