"""What a trained pair says: draws as an ArviZ object, collapse of latents, plots."""

from pyro_lvm.diagnostics.collapse import ActiveUnits, active_units
from pyro_lvm.diagnostics.conversion import posterior
from pyro_lvm.diagnostics.curves import plot_history, plot_kl
from pyro_lvm.diagnostics.diffusion import plot_diffusion
from pyro_lvm.diagnostics.galleries import plot_reconstructions, plot_samples
from pyro_lvm.diagnostics.gold_standard import nuts
from pyro_lvm.diagnostics.held_levels import plot_levels, sample_levels
from pyro_lvm.diagnostics.latent_space import plot_code, plot_latent
from pyro_lvm.diagnostics.predictive import sample_predictive
from pyro_lvm.diagnostics.prior_contours import plot_prior
from pyro_lvm.diagnostics.sphere import plot_sphere

__all__ = [
    "ActiveUnits",
    "active_units",
    "nuts",
    "plot_code",
    "plot_diffusion",
    "plot_history",
    "plot_kl",
    "plot_latent",
    "plot_levels",
    "plot_prior",
    "plot_reconstructions",
    "plot_samples",
    "plot_sphere",
    "posterior",
    "sample_levels",
    "sample_predictive",
]
