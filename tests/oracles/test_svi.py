"""Everything with an exact answer against it, with the zoo's own recipes, on real data: what `pyro-lvm verify` runs."""

import io
from itertools import islice

import pytest
import torch
from rich.console import Console

from pyro_lvm import data
from pyro_lvm.verify import Comparison, diffusions, hierarchies, linear_gaussian, print_table, spheres, verify


def test_quick_answers_are_reached() -> None:
    """Trained probabilistic PCA against its maximum likelihood, its evidence and its gap, and what trains nothing."""
    of_ppca = islice(linear_gaussian(data.load("digits"), seed=1, progress=False), 3)
    comparisons = [*of_ppca, *hierarchies(1), *diffusions(1), *spheres(1)]
    assert len(comparisons) == 14
    assert all(comparison.passed for comparison in comparisons), comparisons


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_exact_answers_are_reached() -> None:
    comparisons = verify(seed=1)
    text = io.StringIO()
    print_table(comparisons, Console(file=text, width=200))
    print(text.getvalue())
    assert len(comparisons) == 25
    assert all(comparison.passed for comparison in comparisons), text.getvalue()
    assert "25 of 25 passed" in text.getvalue()


def test_a_comparison_outside_its_gate_fails() -> None:
    assert not Comparison("a", 1.0, 2.0, -0.5, 0.5, "").passed
    assert not Comparison("a", float("nan"), 2.0, -torch.inf, torch.inf, "").passed
    assert Comparison("a", 1.0, 1.2, -0.5, 0.5, "").passed
