"""What a trained pair says: draws as an ArviZ object, collapse of latents, plots."""

from pyro_lvm.diagnostics.against_gold import PosteriorComparison, compare_to, plot_comparison
from pyro_lvm.diagnostics.calibration import (
    Calibration,
    VariationalCalibration,
    simulation_based_calibration,
    variational_calibration,
)
from pyro_lvm.diagnostics.collapse import ActiveUnits, active_units
from pyro_lvm.diagnostics.conversion import posterior
from pyro_lvm.diagnostics.curves import plot_history, plot_kl
from pyro_lvm.diagnostics.diffusion import plot_diffusion
from pyro_lvm.diagnostics.evidence_table import compare_evidence, khat
from pyro_lvm.diagnostics.galleries import plot_reconstructions, plot_samples
from pyro_lvm.diagnostics.gold_standard import nuts
from pyro_lvm.diagnostics.held_levels import plot_levels, sample_levels
from pyro_lvm.diagnostics.latent_space import plot_code, plot_latent
from pyro_lvm.diagnostics.predictive import sample_predictive
from pyro_lvm.diagnostics.prior_contours import plot_prior
from pyro_lvm.diagnostics.prior_posterior import plot_prior_posterior
from pyro_lvm.diagnostics.rank_plots import plot_ranks
from pyro_lvm.diagnostics.sphere import plot_sphere

__all__ = [
    "ActiveUnits",
    "Calibration",
    "PosteriorComparison",
    "VariationalCalibration",
    "active_units",
    "compare_evidence",
    "compare_to",
    "khat",
    "nuts",
    "plot_code",
    "plot_comparison",
    "plot_diffusion",
    "plot_history",
    "plot_kl",
    "plot_latent",
    "plot_levels",
    "plot_prior",
    "plot_prior_posterior",
    "plot_ranks",
    "plot_reconstructions",
    "plot_samples",
    "plot_sphere",
    "posterior",
    "sample_levels",
    "sample_predictive",
    "simulation_based_calibration",
    "variational_calibration",
]
