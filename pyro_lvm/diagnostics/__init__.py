"""What a trained pair says: draws as an ArviZ object, collapse of latents, plots."""

from pyro_lvm.diagnostics import paths
from pyro_lvm.diagnostics.against_gold import PosteriorComparison, compare_to, plot_comparison
from pyro_lvm.diagnostics.attributes import AttributeSuccess, Share, attribute_success, attribute_vector, plot_attribute
from pyro_lvm.diagnostics.auroc import AUROC, auroc
from pyro_lvm.diagnostics.calibration import (
    Calibration,
    VariationalCalibration,
    simulation_based_calibration,
    variational_calibration,
)
from pyro_lvm.diagnostics.collapse import ActiveUnits, active_units
from pyro_lvm.diagnostics.complexity import complexity
from pyro_lvm.diagnostics.conversion import posterior
from pyro_lvm.diagnostics.curves import plot_history, plot_kl
from pyro_lvm.diagnostics.density_ratio import DensityRatio, density_ratio
from pyro_lvm.diagnostics.diffusion import plot_diffusion
from pyro_lvm.diagnostics.evidence_table import compare_evidence, khat
from pyro_lvm.diagnostics.galleries import plot_reconstructions, plot_samples
from pyro_lvm.diagnostics.gold_standard import nuts
from pyro_lvm.diagnostics.held_levels import plot_levels, sample_levels
from pyro_lvm.diagnostics.holes import Holes, holes, plot_holes
from pyro_lvm.diagnostics.information import MutualInformation, mutual_information
from pyro_lvm.diagnostics.interpolation import interpolate, plot_interpolation
from pyro_lvm.diagnostics.latent_grid import Manifold, manifold, plot_manifold
from pyro_lvm.diagnostics.latent_space import plot_code, plot_latent
from pyro_lvm.diagnostics.out_of_distribution import (
    OutOfDistribution,
    Score,
    out_of_distribution,
    plot_out_of_distribution,
)
from pyro_lvm.diagnostics.plausibility import Plausibility, plausibility, plot_plausibility
from pyro_lvm.diagnostics.predictive import sample_predictive
from pyro_lvm.diagnostics.prior_contours import plot_prior
from pyro_lvm.diagnostics.prior_posterior import plot_prior_posterior
from pyro_lvm.diagnostics.rank_plots import plot_ranks
from pyro_lvm.diagnostics.regret import likelihood_regret
from pyro_lvm.diagnostics.side_by_side import plot_evidence, plot_runs
from pyro_lvm.diagnostics.sphere import plot_sphere
from pyro_lvm.diagnostics.surgery import Surgery, plot_surgery, surgery
from pyro_lvm.diagnostics.traversals import plot_traversals, traverse
from pyro_lvm.diagnostics.units import UnitDivergences, plot_units, unit_divergences

__all__ = [
    "AUROC",
    "ActiveUnits",
    "AttributeSuccess",
    "Calibration",
    "DensityRatio",
    "Holes",
    "Manifold",
    "MutualInformation",
    "OutOfDistribution",
    "Plausibility",
    "PosteriorComparison",
    "Score",
    "Share",
    "Surgery",
    "UnitDivergences",
    "VariationalCalibration",
    "active_units",
    "attribute_success",
    "attribute_vector",
    "auroc",
    "compare_evidence",
    "compare_to",
    "complexity",
    "density_ratio",
    "holes",
    "interpolate",
    "khat",
    "likelihood_regret",
    "manifold",
    "mutual_information",
    "nuts",
    "out_of_distribution",
    "paths",
    "plausibility",
    "plot_attribute",
    "plot_code",
    "plot_comparison",
    "plot_diffusion",
    "plot_evidence",
    "plot_history",
    "plot_holes",
    "plot_interpolation",
    "plot_kl",
    "plot_latent",
    "plot_levels",
    "plot_manifold",
    "plot_out_of_distribution",
    "plot_plausibility",
    "plot_prior",
    "plot_prior_posterior",
    "plot_ranks",
    "plot_reconstructions",
    "plot_runs",
    "plot_samples",
    "plot_sphere",
    "plot_surgery",
    "plot_traversals",
    "plot_units",
    "posterior",
    "sample_levels",
    "sample_predictive",
    "simulation_based_calibration",
    "surgery",
    "traverse",
    "unit_divergences",
    "variational_calibration",
]
