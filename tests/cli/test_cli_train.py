"""`pyro-lvm train` and `demo`: what a run folder holds, and that its settings make it again."""

import json
from pathlib import Path

import arviz
import numpy as np
import pytest
import safetensors.torch
import torch
from cli_calls import SMALL, Call

import pyro_lvm as lvm
from pyro_lvm import workflow, zoo


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    assert weights(one).keys() == weights(other).keys()
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


def test_a_run_folder_holds_everything(trained: Path) -> None:
    files = {"config.json", "history.csv", "model.safetensors", "evaluation.json", "posterior.nc", "report.html"}
    assert {file.name for file in trained.iterdir()} >= files
    assert (trained / "posterior.nc").stat().st_size < 20e6
    assert "vae on digits" in (trained / "report.html").read_text()
    config = json.loads((trained / "config.json").read_text())
    assert config["recipe"] == "vae"
    assert config["latent_dim"] == 4
    assert config["hidden_features"] == [16]
    assert config["epochs"] == 2
    assert config["early_stopping"] == zoo.build("vae", workflow.load_data())[2].training["early_stopping"]
    assert config["versions"]["pyro-lvm"] == lvm.__version__
    known = {name for group in workflow.settings("vae").values() for name in group}
    assert config.keys() == known | {"recipe", "versions"}


def test_weights_are_in_single_precision_whatever_the_process_has_set(trained: Path) -> None:
    assert {tensor.dtype for tensor in weights(trained).values()} == {torch.float32}


def test_the_file_of_draws_is_arvizs(trained: Path) -> None:
    posterior = arviz.from_netcdf(str(trained / "posterior.nc"))["posterior"]
    assert posterior["z"].sizes["chain"] == 4
    assert 1 <= posterior["z"].sizes["datum"] <= 64


def test_the_saved_settings_make_the_run_again(trained: Path, call: Call, tmp_path: Path, no_report: None) -> None:
    torch.manual_seed(7)
    called = call("train", "vae", "--config", trained / "config.json", "--run-dir", tmp_path / "again")
    assert called.status == 0, called.err
    assert_same_weights(trained, tmp_path / "again")
    one, other = (json.loads((run / "config.json").read_text()) for run in (trained, tmp_path / "again"))
    assert one == other
    one, other = (json.loads((run / "evaluation.json").read_text()) for run in (trained, tmp_path / "again"))
    assert one["numbers"][:-1] == other["numbers"][:-1]  # the last is the time it took


def test_options_win_over_the_file_which_may_name_the_recipe(
    trained: Path, call: Call, tmp_path: Path, no_report: None
) -> None:
    called = call("train", "--config", trained / "config.json", "--seed", 1, "--run-dir", tmp_path / "other")
    assert called.status == 0, called.err
    assert json.loads((tmp_path / "other/config.json").read_text())["seed"] == 1
    with pytest.raises(AssertionError):
        assert_same_weights(trained, tmp_path / "other")


def test_settings_may_be_yaml(call: Call, tmp_path: Path, pixels: Path, no_report: None) -> None:
    (tmp_path / "settings.yaml").write_text(f"data: {pixels}\nlearning_rate: 1e-2\nhidden_features: [4]\nepochs: 1\n")
    called = call("train", "vae", "--config", tmp_path / "settings.yaml", "--run-dir", tmp_path / "run", *SMALL[2:])
    assert called.status == 0, called.err
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["learning_rate"], config["hidden_features"], config["epochs"]) == (0.01, [4], 1)


# By command, one recipe of every kind of bound; all the others are trained in Python, by tests/test_zoo.py.
QUICK = {zoo.recipe(name).bound: name for name in reversed(zoo.names())}.values()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in zoo.names()])
def test_every_recipe_trains(name: str, call: Call, tmp_path: Path, no_report: None) -> None:
    x = np.random.default_rng(0).integers(0, 2, (60, 8, 8))
    np.savez(tmp_path / "data.npz", train=x[:40], validation=x[40:50], test=x[50:])
    fewer = {"steps": 25, "sampling_steps": 10}  # of diffusions, whose draws take as many passes of their network
    own = zoo.recipe(name).settings
    few = [part for n, value in fewer.items() if n in own for part in ("--" + n.replace("_", "-"), value)]
    called = call("train", name, "--data", tmp_path / "data.npz", "--run-dir", tmp_path / "run", *few, *SMALL)
    assert called.status == 0, called.err
    assert called.err == ""
    recipe = zoo.recipe(name)
    assert f"test {recipe.bound}" in called.out
    assert "test ELBO" in called.out or recipe.bound.startswith("log-likelihood")
    for line in ("KL of z", "worst k-hat", "active units", "training time", str(tmp_path / "run")):
        assert line in called.out
    evaluation = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert all(
        number["unit"] or "units" in number["name"] or "k-hat" in number["name"] for number in evaluation["numbers"]
    )
    assert evaluation["size"] == 8


def test_numbers_of_discrete_data_come_in_bits_too(trained: Path) -> None:
    numbers = {n["name"]: n for n in json.loads((trained / "evaluation.json").read_text())["numbers"]}
    nats, bits = numbers["test log-likelihood"], numbers["test bits per dimension"]
    assert bits["value"] == pytest.approx(-nats["value"] / (64 * np.log(2)), rel=1e-6)
    assert bits["standard_error"] == pytest.approx(nats["standard_error"] / (64 * np.log(2)), rel=1e-6)
    assert numbers["test ELBO"]["value"] < nats["value"]


def test_densities_of_discrete_data_are_not_given_in_bits(
    call: Call, tmp_path: Path, pixels: Path, no_report: None
) -> None:
    called = call("train", "vae-gaussian", "--data", pixels, "--run-dir", tmp_path / "run", *SMALL)
    assert called.status == 0, called.err
    assert "bits" not in called.out


def test_data_without_a_test_split_are_evaluated_on_others_and_it_says_so(
    call: Call, tmp_path: Path, pixels: Path, no_report: None
) -> None:
    own = ("train", "vae", "--data", pixels, "--test", 0)
    called = call(*own, "--validation", 10, "--run-dir", tmp_path / "a", *SMALL)
    assert "no test split: the numbers are of the validation split" in called.out
    assert "validation ELBO" in called.out
    called = call(*own, "--validation", 0, "--run-dir", tmp_path / "b", *SMALL)
    assert "train ELBO" in called.out


def test_options_of_every_kind(call: Call, tmp_path: Path, pixels: Path, no_report: None) -> None:
    called = call(
        "train", "vae-gaussian", "--data", pixels, "--run_dir", tmp_path / "run", "--hidden_features", 4, 5,
        "--scale=0.5", "--optimizer", "AdamW", "--optimizer-options", '{"weight_decay": 0.1}', "--no-progress",
        "--validation", "0.25", "--gradient-clip", "1", "--early-stopping", "null", *SMALL,
    )  # fmt: skip
    assert called.status == 0, called.err
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["hidden_features"] == [4, 5]
    assert config["scale"] == 0.5
    assert config["optimizer_options"] == {"weight_decay": 0.1}
    assert config["early_stopping"] is None
    assert config["validation"] == 0.25
    assert config["data"] == str(pixels)


def test_a_run_folder_is_named_after_recipe_and_data(
    call: Call, tmp_path: Path, pixels: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # within the same second, perhaps
        assert call("train", "ppca", "--data", pixels.name, "--latent-dim", 2, *SMALL).status == 0
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("ppca-pixels-") for folder in folders)
    monkeypatch.chdir("/")  # the settings mean the same anywhere
    assert call("evaluate", folders[0], "--num-particles", 30).status == 0


def test_the_demo_is_a_training_of_the_digits(call: Call, tmp_path: Path, no_report: None) -> None:
    called = call("demo", "--hidden-features", 8, "--run-dir", tmp_path / "run", *SMALL)
    assert called.status == 0, called.err
    assert "pyro-lvm train vae --data digits" in called.out
    assert "vae on digits: 8 test data" in called.out
    for name in ("config.json", "history.csv", "model.safetensors", "posterior.nc", "report.html"):
        assert name in called.out


def test_from_python(tmp_path: Path, pixels: Path) -> None:
    run = workflow.train("vae-bernoulli", run_dir=tmp_path / "run", data=str(pixels), epochs=1, latent_dim=2)
    again = workflow.open_run(tmp_path / "run")
    one, other = (workflow.evaluate(r, 30, split="train", limit=8) for r in (run, again))
    assert one.numbers == other.numbers
    workflow.write_evaluation(run, one)
    assert workflow.Evaluation.read(tmp_path / "run/evaluation.json") == one
    with pytest.raises(ValueError, match="no setting 'epoch': did you mean 'epochs'"):
        workflow.train("vae", epoch=1)
