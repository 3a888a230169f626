"""The zoo: named recipes, from a data set to a pair, an objective and training settings.

A family of recipes a file; `registry.py` is what they are entered in, `recipe_parts.py` what they are made of.
"""

# In the order of the table.
from pyro_lvm.zoo import classical, autoencoders, bounds, codes  # noqa: F401, I001  # importing enters the recipes
from pyro_lvm.zoo import with_priors, with_posteriors, hierarchies, beyond_autoencoders  # noqa: F401
from pyro_lvm.zoo import diffusions, discrete_diffusions, super_resolution  # noqa: F401
from pyro_lvm.zoo.registry import Recipe, build, names, recipe

__all__ = ["Recipe", "build", "names", "recipe"]
