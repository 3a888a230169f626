"""The examples run, in settings small enough for a test, and print numbers that make sense."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def as_a_user_runs_them():
    torch.set_default_dtype(torch.float32)
    yield
    assert torch.get_default_dtype() == torch.float32, "the example left the default dtype changed"
    torch.set_default_dtype(torch.float64)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ppca_ends_near_the_maximum_and_its_gap_is_the_divergence(capsys):
    results = example("ppca_against_exact").main(epochs=30, latent_dim=4)
    for numbers in results.values():
        # The evidence of any parameters lies below the maximum, and the ELBO below the evidence: no tolerance needed.
        assert numbers["evidence"] < numbers["best"] < numbers["evidence"] + 5
        assert numbers["elbo"] < numbers["evidence"]
        # The ELBO's standard error: the variance of log w under a normal near p(z | x) is about 2 KL; 5 of them.
        gate = 5 * (2 * numbers["kl"] / (50 * 1000)) ** 0.5
        assert numbers["evidence"] - numbers["elbo"] == pytest.approx(numbers["kl"], abs=gate)
    assert results["full"]["kl"] < results["diagonal"]["kl"]
    printed = capsys.readouterr().out
    assert f"maximum likelihood: {results['full']['best']:.3f}" in printed
    assert f"in closed form {results['diagonal']['kl']:.4f}" in printed


def test_gradients_end_where_em_ends(capsys, tmp_path):
    numbers = example("gmm_against_em").main(epochs=150, folder=tmp_path)
    assert numbers["start"] < numbers["svi"]
    assert numbers["svi"] == pytest.approx(numbers["em"], abs=0.01)
    assert numbers["agreement"] < 0.05
    assert f"EM {numbers['em']:.4f}, gradients {numbers['svi']:.4f}" in capsys.readouterr().out
    assert (tmp_path / "gmm_against_em.png").read_bytes().startswith(b"\x89PNG")


def test_vae_learns_something_and_draws_it(capsys, tmp_path):
    numbers = example("vae_digits").main(epochs=3, num_particles=30, folder=tmp_path)
    uniform = -64 * torch.tensor(17.0).log().item()  # -181: every level of every pixel alike
    assert uniform < numbers["validation"] < numbers["log_likelihood"] + 20 < 0
    assert f"test log-likelihood {numbers['log_likelihood']:.2f} nats" in capsys.readouterr().out
    assert (tmp_path / "vae_digits.png").read_bytes().startswith(b"\x89PNG")


def test_ones_own_pair_beats_factor_analysis_on_heavy_tails(capsys):
    numbers = example("write_your_own").main(epochs=60, num_particles=50)
    assert numbers["factor_analysis"] < numbers["own"] < 0
    printed = capsys.readouterr().out
    assert f"test log-likelihood {numbers['own']:.2f}" in printed
    assert "{'chain': 4, 'draw': 500, 'datum': 5, 'z_dim': 3}" in printed


def test_gaps_of_inference_are_split_and_drawn(capsys, tmp_path):
    found = example("inference_gaps").main(epochs=2, test=4, steps=20, folder=tmp_path)
    printed = capsys.readouterr().out
    assert len(found) == 4
    for gaps in found.values():
        # Within the error of the estimates the gaps are no less than nothing.
        inference = gaps.inference
        assert (inference.values > -4.5 * inference.standard_error).all()
        parts = gaps.approximation["same family"].mean + gaps.amortisation["same family"].mean
        assert parts == pytest.approx(inference.mean, abs=1e-6)
        assert f"ELBO {inference.mean:.2f} nats below log p(x)" in printed
    assert (tmp_path / "inference_gaps.png").read_bytes().startswith(b"\x89PNG")


def test_bounds_tighten_towards_the_evidence(capsys, tmp_path):
    bounds = example("tighter_bounds").main(temperatures=30, size=20, folder=tmp_path)
    evidence, _ = bounds["log p(x)"]
    values = [bounds[name][0] for name in ("ELBO", "IWAE, K = 5", "IWAE, K = 50", "IWAE, K = 500")]
    assert values == sorted(values)
    lower, upper = bounds["AIS, lower"], bounds["AIS, upper"]
    assert values[-1] < lower[0] < evidence + 4 * lower[1]
    assert upper[0] > evidence - 4 * upper[1]
    assert f"AIS, upper       {upper[0]:9.4f} ± {upper[1]:.4f}" in capsys.readouterr().out
    assert (tmp_path / "tighter_bounds.png").read_bytes().startswith(b"\x89PNG")


def test_naive_monte_carlo_fails_with_latents_and_a_guide_does_not(capsys, tmp_path):
    found = example("naive_monte_carlo").main(largest=8, num_particles=500, folder=tmp_path)
    assert list(found) == [1, 2, 4, 8]
    naive, guided = found[8]
    assert naive > 5
    assert guided < 0.1
    assert f" 8 latents: error {naive:.3f} naive, {guided:.3f} guided" in capsys.readouterr().out
    assert (tmp_path / "naive_monte_carlo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_guidance_draws_towards_the_class(capsys, tmp_path):
    found = example("guided_digits").main(epochs=25, draws=2, folder=tmp_path)
    assert list(found) == [-1.0, 0.0, 1.0, 3.0]
    # Of 20 draws: one in ten is a class's by chance, 0.067 its standard error.
    assert found[-1.0][0] < 0.1 + 4 * 0.067 < found[3.0][0]
    assert f"w =  3.0: {found[3.0][0]:6.1%} taken for the digit asked for" in capsys.readouterr().out
    assert (tmp_path / "guided_digits.png").read_bytes().startswith(b"\x89PNG")


def test_clothes_and_digits_are_told_apart(capsys, tmp_path):
    found = example("out_of_distribution").main(epochs=2, test=20, steps=10, folder=tmp_path)
    printed = capsys.readouterr().out
    if found is None:
        assert printed.startswith("nothing is done without the files of both sets: ")
        pytest.skip(printed.strip())
    assert list(found.scores) == ["likelihood", "likelihood regret", "complexity-corrected"]
    # Long before it is trained, a model of clothes finds digits likelier, and their length tells them.
    assert found.scores["likelihood"].auroc.value < 0.5 < found.scores["complexity-corrected"].auroc.value
    assert f"AUROC {found.scores['likelihood regret'].auroc}" in printed
    assert (tmp_path / "out_of_distribution.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_is_short_and_in_the_table(script):
    text = script.read_text()
    assert len(text.splitlines()) <= 60
    assert 'if __name__ == "__main__":\n    main()\n' in text
    assert f"`python examples/{script.name}`" in (EXAMPLES / "README.md").read_text()
