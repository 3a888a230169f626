"""What is read of an ArviZ object, of 0.x or 1.x."""

import warnings
from typing import Any

import numpy as np


def arviz() -> Any:
    """ArviZ, imported where it is used, since that takes two seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces its own refactoring when imported
        import arviz
    return arviz


def dataset(idata: Any, group: str, argument: str = "idata") -> Any:
    """One of its groups as an `xarray.Dataset`.

    Raises:
        ValueError: where there is no such group.
    """
    import xarray

    try:
        found = idata[group]
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            f"'{argument}' must be an ArviZ object with a group '{group}', as `diagnostics.posterior` gives, not a "
            f"{type(idata).__name__} without."
        ) from None
    return found if isinstance(found, xarray.Dataset) else found.to_dataset()


def continuous(draws: Any, argument: str = "idata") -> list[str]:
    """Names of the variables of a group that are real numbers.

    Raises:
        ValueError: where none is.
    """
    names = [str(name) for name, values in draws.data_vars.items() if np.issubdtype(values.dtype, np.floating)]
    if not names:
        raise ValueError(f"'{argument}' must hold a continuous latent, but has {list(draws.data_vars)}.")
    return names


def by_datum(values: Any) -> np.ndarray:
    """Draws of one variable as (chain, draw, datum, unit); what all data share is of a single datum."""
    values = values.transpose("chain", "draw", *(("datum",) if "datum" in values.dims else ()), ...)
    array = np.asarray(values.values, dtype=np.float64)
    return array.reshape(*array.shape[:2], array.shape[2] if "datum" in values.dims else 1, -1)


def unit_names(values: Any) -> list[str]:
    """What the units of a variable are called, in the order of `by_datum`: z[0], z[1], ..."""
    sizes = [size for dim, size in values.sizes.items() if dim not in ("chain", "draw", "datum")]
    if not sizes:
        return [str(values.name)]
    return [f"{values.name}[{', '.join(map(str, index))}]" for index in np.ndindex(*sizes)]
