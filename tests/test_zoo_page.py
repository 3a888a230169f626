"""The zoo's page: every entry has formulas, a reference and, measured or not, a row."""

import re

import pytest

from benchmarks import zoo_page
from pyro_lvm import data, models, objectives, posteriors, zoo

ENTRIES = [name for name in zoo.names() if name != "vae-bernoulli"]


def entry(name: str, runs: list | None = None, compiled: dict | None = None) -> zoo_page.Entry:
    model, guide, recipe = zoo.build(name, data.load("digits"))
    return zoo_page.Entry(recipe, model, guide, runs or [], compiled or {})


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_formulas_and_a_row_before_it_is_measured(name: str) -> None:
    of = entry(name)
    model, *others = zoo_page.brief(of)
    assert model.count("$") >= 2
    assert any("$q" in formula or "q(" in formula or r"\leftarrow" in formula for formula in others), others
    *_, row = zoo_page.overview([of])
    assert len(re.findall(r"(?<!\\)\|", row)) == 6  # five cells, whatever bars the formulas have
    assert of.recipe.reference in row
    assert "| not yet | not measured |" in row
    assert f"## `{name}`" in zoo_page.section(of)


def test_every_entry_has_a_picture() -> None:
    drawn = {path.stem for path in (zoo_page.DOCS / "pictures").glob("*.png")}
    missing = " ".join(name for name in zoo.names() if name not in drawn)
    assert not missing, f"draw them: python -m benchmarks.zoo_table --pictures docs/pictures --seeds 1 {missing}"


def test_numbers_of_an_entry() -> None:
    runs = [
        {"log_likelihood": -92.0, "elbo": -95.0, "standard_error": 0.01, "worst_khat": 1.5, "seconds": 4.0},
        {"log_likelihood": -94.0, "elbo": -97.0, "standard_error": 0.02, "worst_khat": 1.2, "seconds": 6.0},
    ]
    of = entry("vae", runs, {"failure": None, "ratio": 2.04, "batch": 64, "programs": 9.0, "replayed": 4.4})
    *_, row = zoo_page.overview([of])
    assert "| -93.00\u00a0±\u00a01.41 | yes, 2.0 times |" in row
    *_, row = zoo_page.numbers([of])
    assert row == "| `vae` | -96.00 | -93.00 | 1.41 | 0.020 | 1.50 | 5 |"
    assert "2.0 times faster, 9.00 against 4.40 ms" in zoo_page.section(of)


def test_formulas_are_the_descriptions_own() -> None:
    assert zoo_page.formulas(posteriors.DiagonalNormal).startswith(r"$q(z \mid x) = \prod_m")
    assert zoo_page.formulas(posteriors.PlanarFlow).startswith("A diagonal normal after planar flows, $z")
    assert zoo_page.formulas(models.BayesianGaussianMixture).startswith(r"$\pi \sim \mathrm{Dirichlet}(\alpha_0)$, ")
    assert zoo_page.formulas(objectives.IWAE).startswith(r"$\mathcal L_K = E")
    assert "|" not in zoo_page.in_a_cell(r"$|x| \, \|y\|$")
