import base64
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pyro
import pyro.distributions as dist
import pytest
import torch
from chromium import needs_chromium, opened
from torch import Tensor, nn
from torch.utils.data import Dataset

from pyro_lvm import guides, likelihoods, models, networks, posteriors, priors
from pyro_lvm.report import Number, write_report

VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Data:
    train: Any
    validation: Any = None
    test: Any = None
    labels: dict[str, Tensor] = field(default_factory=dict)
    levels: int | None = None
    name: str = "toy"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train[0].shape)


class Page(HTMLParser):
    """Tags in order, text, and whether every element is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def vae(shape: tuple[int, ...], levels: int, latent_dim: int = 4) -> tuple[nn.Module, nn.Module]:
    decoder = likelihoods.Categorical(networks.MLP(latent_dim, (*shape, levels), (16,)), levels)
    encoder = posteriors.DiagonalNormal(networks.MLP(shape, 2 * latent_dim, (16,)))
    return models.VAE(priors.StandardNormal(latent_dim), decoder), guides.Amortized(encoder)


def arguments(kind: str) -> dict[str, Any]:
    if kind in ("digits", "mnist", "colour"):
        shape, levels = {"digits": ((8, 8), 17), "mnist": ((28, 28), 2), "colour": ((3, 6, 6), 16)}[kind]
        model, guide = vae(shape, levels)
        x = torch.randint(levels, (150, *shape)).double()
        data = Data(x[:90], x[90:120], x[120:], {"test": torch.arange(30) % 10}, levels)
    elif kind == "mixture":
        model = models.GaussianMixture(4, components=3)
        guide = guides.Responsibilities(model)
        x = model.sample(60)
        data = Data(x, labels={"train": torch.arange(60) % 3})
    elif kind == "shared":
        model = models.BayesianGaussianMixture(2, components=3, degrees_of_freedom=10.0, weight_concentration=2.0)
        guide = guides.NormalWishart(model)
        data = Data(model.sample(40))
    else:
        model = models.ProbabilisticPCA({"scalar": 1, "pair": 2, "vector": 7}[kind], latent_dim=1)
        guide = guides.ExactPPCA(model)
        data = Data(model.sample(40), test=model.sample(20))
    history = [{"epoch": e, "train": -9.0 + e, "validation": -9.5 + e, "kl_z": 0.1 * e} for e in (1, 2, 3)]
    return {
        "title": "A run",
        "settings": {"epochs": 3, "optimiser": {"name": "Adam", "learning_rate": 1e-3}},
        "numbers": [Number("log-likelihood", -134.2143, "nats per datum", "Higher is better.", 0.123)],
        "history": history,
        "model": model,
        "guide": guide,
        "dataset": data,
    }


KINDS = ("digits", "mnist", "colour", "mixture", "shared", "scalar", "pair", "vector")
LONGER = ("mnist", "colour", "pair")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in LONGER)) for k in KINDS])
def test_the_page_stands_by_itself(kind: str, tmp_path: Path) -> None:
    file = write_report(tmp_path / "report.html", **arguments(kind))
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert "could not be drawn" not in page.text
    assert file.stat().st_size < 1_500_000
    # Nothing is loaded from anywhere, and nothing runs.
    for _, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "data", "action", "poster", "srcset"):
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#"))
            assert not name.startswith("on")
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not page.all("script")
    # Who cannot see the pictures is told what they show.
    images = page.all("img")
    assert len(images) >= 5
    for image in images:
        assert len(image["alt"] or "") > 15
        png = base64.b64decode((image["src"] or "").split(",")[1])
        assert png.startswith(b"\x89PNG")
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
        assert int(image["width"] or 0) / int(image["height"] or 1) == pytest.approx(width / height, rel=0.02)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    headings = [name for name, _ in page.tags if re.fullmatch("h[1-6]", name)]
    assert headings[0] == "h1"
    assert set(headings[1:]) == {"h2"}
    sections = [attributes.get("id") for attributes in page.all("section")]
    assert sections[:3] == ["verdicts", "numbers", "learning"]
    assert sections[-2:] == ["settings", "how"]
    anchors = {(link["href"] or "")[1:] for link in page.all("a")}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}
    assert any("width=device-width" in (meta.get("content") or "") for meta in page.all("meta"))
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert "−134.21 ± 0.12" in page.text
    assert "optimiser.learning_rate" in page.text


@needs_chromium
def test_a_browser_has_nothing_to_complain_of(tmp_path: Path) -> None:
    document, console = opened(write_report(tmp_path / "report.html", **arguments("digits")), "", tmp_path / "profile")
    assert console == []
    assert Page(document).all("img")


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("1")</script> & <b>'
    given = arguments("vector") | {
        "title": evil,
        "settings": {evil: evil},
        "numbers": [Number(evil, 1.0, evil, evil)],
        "history": [{"epoch": 1, "train": 1.0, f"kl_{evil}": 2.0}],
    }
    given["dataset"].name = evil
    page = Page(write_report(tmp_path / "r.html", **given).read_text(encoding="utf-8"))
    assert not page.all("script")
    assert not page.all("b")
    assert page.text.count(evil) >= 8


def test_the_same_arguments_give_the_same_bytes_and_leave_the_state_alone(tmp_path: Path) -> None:
    given = arguments("digits")
    pyro.param("mine", torch.ones(1))
    before, parameters = torch.get_rng_state(), dict(matplotlib.rcParams)
    given["model"].train()
    first = write_report(tmp_path / "1.html", **given).read_bytes()
    assert torch.equal(torch.get_rng_state(), before)
    assert dict(matplotlib.rcParams) == parameters
    assert list(pyro.get_param_store().keys()) == ["mine"]
    assert given["model"].training
    assert write_report(tmp_path / "2.html", **given, seed=1).read_bytes() != first
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert write_report(tmp_path / "3.html", **given).read_bytes() == first


def test_a_run_without_training_labels_or_numbers(tmp_path: Path) -> None:
    given = arguments("digits") | {"history": [], "numbers": [], "settings": {}}
    given["dataset"] = Data(given["dataset"].train, levels=17)
    page = Page(write_report(tmp_path / "r.html", **given).read_text(encoding="utf-8"))
    assert "No training was recorded" in page.text
    assert "(train)" in page.text


def test_a_loss_that_is_no_bound_is_not_called_one(tmp_path: Path) -> None:
    file = write_report(tmp_path / "r.html", **arguments("scalar"), objective="minus the simple loss (a datum)")
    page = Page(file.read_text(encoding="utf-8"))
    assert any("Line chart by epoch of minus the simple loss" in (image["alt"] or "") for image in page.all("img"))
    assert "train and validation: minus the simple loss (a datum)" in page.text
    assert "bound on log p(x) (nats" not in page.text


class TooLarge(Dataset[Any]):
    """A set of a billion data, each with its label."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        assert index < 1000, "the report reads the first data only"
        return torch.full((7,), float(index)), index % 10


def test_data_too_large_for_memory(tmp_path: Path) -> None:
    given = arguments("vector")
    given["dataset"].test = TooLarge()
    given["dataset"].labels = {}
    text = write_report(tmp_path / "r.html", **given).read_text(encoding="utf-8")
    assert "1000000000 for test" in text
    assert "could not be drawn" not in text


def test_parameters_that_are_not_finite_cost_the_drawings_only(tmp_path: Path) -> None:
    given = arguments("digits")
    for parameter in given["guide"].parameters():
        parameter.data.fill_(float("nan"))
    page = Page(write_report(tmp_path / "r.html", **given).read_text(encoding="utf-8"))
    assert page.text.count("could not be drawn") == 4
    assert page.text.count("unknown") >= 5
    assert "−134.21" in page.text
    assert len(page.all("img")) == 2


def test_a_users_functions(tmp_path: Path) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("people", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample(
                "answers", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0).to_event(1), obs=x
            )

    def guide(x: Tensor) -> None:
        with pyro.plate("people", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 0.5).to_event(1))

    given = arguments("vector") | {"model": model, "guide": guide, "dataset": Data(torch.randn(30, 3))}
    assert "could not be drawn" not in write_report(tmp_path / "r.html", **given).read_text(encoding="utf-8")


def test_an_older_report_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "folder" / "report.html"
    write_report(file, **arguments("scalar"))
    old = file.read_bytes()

    def failing(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_lvm.report.writing.page", failing)
    with pytest.raises(KeyboardInterrupt):
        write_report(file, **arguments("scalar"))
    assert file.read_bytes() == old
    assert [path.name for path in file.parent.iterdir()] == ["report.html"]


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "report.html", tmp_path):
        with pytest.raises(OSError, match="'path' must be a file that can be written"):
            write_report(path, **arguments("scalar"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not [path for path in tmp_path.parent.iterdir() if path.name.startswith(f".{tmp_path.name}")]


def test_a_set_without_data(tmp_path: Path) -> None:
    given = arguments("vector") | {"dataset": Data([torch.zeros(2)])}
    given["dataset"].train = torch.zeros(0, 2)
    with pytest.raises((ValueError, IndexError)):
        write_report(tmp_path / "r.html", **given)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-134.2143, 0.123, "−134.21 ± 0.12"),
        (1234.5, 21.0, "1234 ± 21"),
        (0.001234567, None, "0.0012346"),
        (14.0, None, "14"),
        (1e-3, 2.2e-5, "0.001000 ± 0.000022"),
        (float("nan"), 0.1, "n/a"),
        (float("-inf"), None, "−inf"),
        (2.0, 0.0, "2 ± 0"),
        (2.0, float("nan"), "2 ± n/a"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(value: float, error: float | None, text: str) -> None:
    assert Number("n", value, "", "", error).text == text


def test_numbers_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Number("n", 1.0, "", "").value = 2.0  # type: ignore[misc]


def test_nothing_slow_or_global_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from types import SimpleNamespace
import pyro_lvm.diagnostics
from pyro_lvm import guides, models
from pyro_lvm.report import write_report

print([name for name in ("arviz", "matplotlib", "xarray") if name in sys.modules])
model = models.ProbabilisticPCA(3, 2)
data = SimpleNamespace(name="", train=model.sample(9), validation=None, test=None, labels={{}}, levels=None, shape=(3,))
write_report({str(tmp_path / "r.html")!r}, title="", settings={{}}, numbers=[], history=[], model=model,
             guide=guides.ExactPPCA(model), dataset=data)
print([name for name in ("arviz", "matplotlib.pyplot") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["[]", "[]"]
