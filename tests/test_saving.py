"""Saving and loading: the same numbers, by anyone, without executing anything."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import pyro_lvm as lvm
from pyro_lvm import data, guides, likelihoods, models, networks, posteriors, priors, zoo


def pair() -> tuple[models.VAE, guides.Amortized]:
    model = models.VAE(priors.StandardNormal(2), likelihoods.Normal(networks.MLP(2, (6,), (8,), nn.Tanh), "predicted"))
    return model, guides.Amortized(
        posteriors.DiagonalNormal(nn.Sequential(nn.Linear(3, 8), nn.ELU(0.5), nn.Tanh(), nn.Linear(8, 4)))
    )


def log_likelihood(model: Any, guide: Any, x: Tensor) -> Tensor:
    return lvm.log_likelihood(model, guide, x, 10, seed=0) + 0


def lower_bound(model: Any, guide: Any, x: Tensor) -> Tensor:
    return lvm.evidence.lower_bound(model, guide, x, 10, seed=0) + 0


@pytest.mark.parametrize("name", zoo.names())
def test_every_entry_comes_back_with_identical_numbers(name: str, tmp_path: Path) -> None:
    dataset = data.load("digits-static" if name == "vae-bernoulli" else "digits")
    model, guide, recipe = zoo.build(name, dataset, seed=3)
    lvm.save(tmp_path / "pair.safetensors", model, guide)
    model_, guide_ = lvm.load(tmp_path / "pair.safetensors")
    judge = log_likelihood if recipe.evidence == "log-likelihood" else lower_bound
    assert torch.equal(judge(model, guide, dataset.test[:4]), judge(model_, guide_, dataset.test[:4]))
    assert type(model_) is type(model)


def test_a_fresh_process_reads_the_same(tmp_path: Path) -> None:
    model, guide = (program.float() for program in pair())
    lvm.save(tmp_path / "pair.safetensors", model, guide)
    x = torch.linspace(-1, 1, 6, dtype=torch.float32).reshape(2, 3)
    code = (
        "import sys, torch, pyro_lvm as lvm\n"
        "model, guide = lvm.load(sys.argv[1])\n"
        "x = torch.linspace(-1, 1, 6).reshape(2, 3)\n"
        "print((lvm.log_likelihood(model, guide, x, 10, seed=0) + 0).tolist())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pair.safetensors")], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == pytest.approx(log_likelihood(model, guide, x).tolist(), rel=1e-6)


def test_what_a_guide_shares_with_its_model_is_shared_again(tmp_path: Path) -> None:
    model = models.ProbabilisticPCA(4, 2)
    lvm.save(tmp_path, model, guides.ExactPPCA(model))
    model_, guide_ = lvm.load(tmp_path)
    assert guide_.model is model_  # type: ignore[attr-defined]
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert all(name.startswith("model.") for name in file.keys())  # noqa: SIM118


def test_the_same_pair_makes_the_same_bytes(tmp_path: Path) -> None:
    """So that who trains a run again can tell by a checksum."""
    model, guide = pair()
    assert len({lvm.save(tmp_path / f"{i}.safetensors", model, guide).read_bytes() for i in range(8)}) == 1
    with safetensors.safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata()["format"] is not None
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = {f"model.{n}": p for n, p in model.state_dict().items()}
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_precision_is_kept(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float64):
        model = models.ProbabilisticPCA(4, 2).to(dtype)
        lvm.save(tmp_path, model, guides.LinearNormal(4, 2).to(dtype))
        assert lvm.load(tmp_path)[0].weight.dtype == dtype  # type: ignore[attr-defined]


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    lvm.save(tmp_path, *pair())
    state = torch.get_rng_state()
    lvm.load(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


class Own(nn.Module):
    """A user's network, of which nobody knows how it was made."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Linear(2, width)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)  # type: ignore[no-any-return]


def test_programs_nobody_can_describe_are_filled(tmp_path: Path) -> None:
    _, guide = pair()
    model = models.VAE(priors.StandardNormal(2), likelihoods.Normal(Own(3)))
    lvm.save(tmp_path, model, guide)
    with pytest.raises(ValueError, match=r"into=\(model, guide\)"):
        lvm.load(tmp_path)
    empty = models.VAE(priors.StandardNormal(2), likelihoods.Normal(Own(3))), pair()[1]
    lvm.load(tmp_path, into=empty)
    x = torch.randn(3, 3)
    assert torch.equal(log_likelihood(model, guide, x), log_likelihood(*empty, x))
    other = models.VAE(priors.StandardNormal(2), likelihoods.Normal(Own(5))), pair()[1]
    with pytest.raises(ValueError, match=r"of shape \(3.*\), the program's is \(5"):
        lvm.load(tmp_path, into=other)
    with pytest.raises(ValueError, match="other parameters"):
        lvm.load(tmp_path, into=(models.ProbabilisticPCA(4, 2), pair()[1]))


def test_functions_with_bare_parameters_are_filled(tmp_path: Path) -> None:
    def make() -> tuple[Any, Any]:
        def model(x: Tensor) -> None:
            scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, scale), obs=x)

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(pyro.param("slope", torch.tensor(0.5)) * x, 1.0))

        return model, guide

    x, trained, fresh = torch.randn(20), make(), make()
    lvm.fit(*trained, x, epochs=5, batch_size=20, learning_rate=0.1)
    lvm.save(tmp_path, *trained)
    lvm.log_likelihood(*fresh, x, 2)  # makes its parameters
    lvm.load(tmp_path, into=fresh)
    assert torch.equal(log_likelihood(*trained, x), log_likelihood(*fresh, x))


def test_parts_of_the_users_own_are_saved_by_deriving_from_part(tmp_path: Path) -> None:
    class Affine(lvm.Part):
        def __init__(self, width: int, *, bias: bool = True) -> None:
            super().__init__()
            self.net = nn.Linear(2, width, bias=bias)

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z)  # type: ignore[no-any-return]

    model = models.VAE(priors.StandardNormal(2), likelihoods.Normal(Affine(3, bias=False)))
    lvm.save(tmp_path, model, pair()[1])
    assert lvm.load(tmp_path)[0].decoder.net.net.bias is None  # type: ignore[attr-defined]


def test_damaged_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = lvm.save(tmp_path / "pair.safetensors", *pair())
    content = path.read_bytes()
    for damaged in (content[:40], content[: len(content) // 2], b"", b"\x00" * 100, b"PK" + content):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            lvm.load(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"not written by pyro_lvm\.save"):
        lvm.load(path)
    with pytest.raises(FileNotFoundError, match="no saved pair"):
        lvm.load(tmp_path / "nothing.safetensors")


def test_a_file_cannot_name_what_it_likes(tmp_path: Path) -> None:
    path = lvm.save(tmp_path / "pair.safetensors", *pair())
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for evil in ("os.system", "torch.nn.functional", "subprocess.Popen", "torch.nn.modules.module.__builtins__"):
        described = json.loads(metadata["programs"])
        described["model"]["class"] = evil
        safetensors.torch.save_file(tensors, path, metadata | {"programs": json.dumps(described)})
        with pytest.raises(ValueError, match="the file names"):
            lvm.load(path)


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lvm.save(tmp_path / "pair.safetensors", *pair())
    content = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        lvm.save(path, *pair())
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
