"""`pyro-lvm compare`: what it says of runs is what their folders hold and what closed forms give."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_calls import SMALL, Call

from pyro_lvm import exact, workflow
from pyro_lvm.comparison import compare
from pyro_lvm.programs import pair, parameters_of


@pytest.fixture(scope="module")
def runs(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A variational autoencoder, a flow and probabilistic PCA on the digits, hardly trained; for reading only."""
    folder, before = tmp_path_factory.mktemp("compared"), torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    training = {"epochs": 1, "evaluation_particles": 30, "evaluation_limit": 8, "progress": False}
    for name, own in (("flow-realnvp", {"hidden_features": (4,), "transforms": 2}), ("ppca", {"latent_dim": 3})):
        run = workflow.train(name, run_dir=folder / name, **own, **training)
        workflow.write_evaluation(run, workflow.evaluate(run, 30, limit=8))
    torch.set_default_dtype(before)
    return [trained, folder / "flow-realnvp", folder / "ppca"]


def stored(run: Path) -> dict[str, Any]:
    return {n["name"]: n for n in json.loads((run / "evaluation.json").read_text())["numbers"]}


def test_runs_side_by_side(runs: list[Path], call: Call) -> None:
    called = call("compare", *runs, "--format", "json")
    assert called.status == 0, called.err
    result = json.loads(called.out)
    assert (result["data"], result["split"], result["size"]) == ("digits", "test", 8)
    columns = {run["recipe"]: run for run in result["runs"]}
    assert list(columns) == ["vae", "flow-realnvp", "ppca"]
    for path in runs:
        run = workflow.open_run(path)
        column, numbers = columns[run.recipe.name], columns[run.recipe.name]["numbers"]
        if run.recipe.name == "ppca":
            model: Any = run.model
            x = run.dataset.test[:8].flatten(1).float()
            closed = exact.log_evidence(x, model.weight, model.bias, model.noise_scale**2).mean().item()
            assert numbers["evidence"]["value"] == pytest.approx(closed, rel=1e-5)
            assert numbers["evidence"]["standard_error"] is None
            assert column["words"]["evidence is"] == "log-likelihood, exact, a density"
            assert "bits per dimension" in column["missing"]
        else:
            assert numbers["evidence"] == stored(path)["test log-likelihood"]
            assert column["words"]["evidence is"] == "log-likelihood, 30 draws"
            assert numbers["bits per dimension"] == stored(path)["test bits per dimension"]
        assert numbers["parameters"]["value"] == sum(p.numel() for p in parameters_of(pair(run.model, run.guide)))
        assert numbers["training time"]["value"] == run.history[-1]["seconds"]
        assert numbers["sampling time"]["value"] > 0
    kinds = [
        [column["words"][word] for word in ("likelihood", "invertible", "bottleneck")] for column in result["runs"]
    ]
    assert kinds == [["bounded", "no", "yes"], ["bounded", "yes", "no"], ["exact", "no", "yes"]]
    assert [column["numbers"]["latent size"]["value"] for column in result["runs"]] == [4, 64, 3]
    errors = {name: column["numbers"]["reconstruction error"]["value"] for name, column in columns.items()}
    assert errors["flow-realnvp"] == 0  # a datum and noise, rounded down
    assert min(errors["vae"], errors["ppca"]) > 1


def test_the_table_for_people(runs: list[Path], call: Call, tmp_path: Path) -> None:
    again = shutil.copytree(runs[0], tmp_path / "again")
    (again / "model.safetensors").unlink()
    called = call("compare", runs[0], runs[2], again)
    assert called.status == 0, called.err
    lines = called.out.splitlines()
    assert lines[0] == "digits: 8 test data"
    assert lines[1].split() == ["number", "vae", f"({runs[0].name})", "ppca", "vae", "(again)"]
    row = next(line for line in lines if line.startswith("evidence, nats per datum"))
    assert row.endswith("–")  # of a run without weights, of which a line below says so
    assert "vae (again): it has no weights yet" in called.out
    marked = call("compare", runs[0], runs[2], "--format", "markdown").out.splitlines()
    assert marked[:2] == ["| number | vae | ppca |", "| --- | --- | --- |"]
    assert all(line.count("|") == 4 for line in marked[2:14])


def test_what_is_asked_for_or_missing_is_measured(runs: list[Path], tmp_path: Path) -> None:
    flow = shutil.copytree(runs[1], tmp_path / "flow")
    compared = compare([runs[0], flow], num_particles=20, limit=4, progress=False)
    assert compared.size == 4
    assert [run.words["evidence is"] for run in compared.runs] == ["log-likelihood, 20 draws"] * 2
    assert (flow / "evaluation.json").read_text() == (runs[1] / "evaluation.json").read_text()  # not written over
    (flow / "evaluation.json").unlink()
    again = compare([runs[0], flow], progress=False).runs[1].numbers["evidence"]  # as its settings say
    assert again.value == stored(runs[1])["test log-likelihood"]["value"]


def test_what_cannot_be_compared_is_refused_in_one_sentence(
    runs: list[Path], call: Call, tmp_path: Path, pixels: Path, no_report: None
) -> None:
    assert call("train", "vae", "--data", pixels, "--run-dir", tmp_path / "other", *SMALL).status == 0
    assert "several data sets, 'digits' (" in call("compare", runs[0], tmp_path / "other").err
    assert "is named twice" in call("compare", runs[0], runs[0].parent / "." / runs[0].name).err
    (tmp_path / "nothing").mkdir()
    assert "no run folder" in call("compare", runs[0], tmp_path / "nothing").err
    run = workflow.open_run(shutil.copytree(runs[2], tmp_path / "ppca"))
    workflow.write_evaluation(run, workflow.evaluate(run, 30, limit=6))
    called = call("compare", runs[0], run.path)
    assert called.status == 2
    assert "evaluated on different data" in called.err
    assert "6 test data" in called.err
    assert call("compare").status == 2


def test_a_page_about_several_runs(runs: list[Path], call: Call, tmp_path: Path) -> None:
    called = call("report", *runs, "--output", tmp_path / "page.html")
    assert called.status == 0, called.err
    assert called.out.strip() == str(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 runs on digits" in text
    assert all(f">{name}<" in text for name in ("vae", "flow-realnvp", "ppca"))
    assert text.count("<img ") == 2 + 3  # the evidence, learning curves, and samples of each
    assert "could not be drawn" not in text


def test_a_runs_own_report_lies_in_its_folder(runs: list[Path], call: Call) -> None:
    called = call("report", runs[0], "--output", "elsewhere.html")
    assert called.status == 2
    assert "'--output' is for the page about several runs" in called.err
