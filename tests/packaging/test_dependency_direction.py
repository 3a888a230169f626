"""Imports point one way; see docs/architecture.md."""

import ast
from pathlib import Path

import pytest

# Right under each component, the components it rests on; it may import those, whatever these rest on, and itself.
# Where a new file belongs is decided here.
RESTS_ON = {
    "configuration": (),
    "sizes": (),
    "distributions": ("configuration", "sizes"),
    "transforms": ("configuration", "sizes"),
    "networks": ("configuration", "sizes"),
    "diffusion": ("distributions", "networks"),
    "priors": ("diffusion", "transforms"),
    "likelihoods": ("diffusion", "transforms"),
    "posteriors": ("distributions", "transforms", "networks"),
    "levels": ("priors", "posteriors"),
    "exact": (),
    "data": ("progress",),
    "progress": (),
    "programs": ("configuration", "capture"),
    "capture": (),
    "objectives": ("programs", "distributions"),
    "compilation": ("objectives",),
    "nonfinite": ("objectives",),
    "preflight": ("nonfinite", "data", "progress"),
    "saving": ("programs",),
    "checkpoint": ("saving",),
    "run_folder": ("checkpoint",),
    "threads": (),
    "processes": ("capture",),
    "launching": ("processes", "threads"),
    "evidence": ("preflight", "progress", "transforms", "launching", "compilation"),
    "fit": ("preflight", "progress", "run_folder", "launching", "compilation"),
    "diagnostics": ("evidence", "fit"),
    "report": ("diagnostics",),
    "models": ("programs", "priors", "likelihoods", "posteriors", "levels"),
    "guides": ("models", "exact"),
    "zoo": ("guides", "objectives", "data"),
    "verify": ("zoo", "report"),
    "workflow": ("zoo", "report"),
    "comparison": ("workflow",),
    "cli": ("workflow", "verify", "comparison"),
    "pyro_lvm": ("zoo", "report"),  # its __init__.py, which offers everything by one name
}
COMMAND_LINE = ("cli", "workflow", "verify", "comparison")  # outside the library: these take what the package offers


def below(component: str) -> set[str]:
    """The component, and everything it rests on, directly or not."""
    return {component}.union(*(below(other) for other in RESTS_ON[component]))


def component_of(name: str) -> str:
    """The component of a file, given by its path from the root of the checkout."""
    parts = Path(name).with_suffix("").parts
    if parts[0] in ("models", "guides"):
        return parts[0]
    return parts[1] if parts[1] != "__init__" else "pyro_lvm"


def imports_of(name: str, source: str) -> set[str]:
    """Every module that a file imports, wherever in it; members that are modules of ours are named in full."""
    package = ["pyro_lvm", *Path(name.removeprefix("pyro_lvm/")).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                ours = module == "pyro_lvm" and alias.name in RESTS_ON
                found.add(f"{module}.{alias.name}" if ours else module)
    return found


def violations(name: str, source: str) -> list[str]:
    """What a file imports though it must not."""
    component = component_of(name)
    if component not in RESTS_ON:
        return [f"{name} belongs to no component that is known here: add '{component}' to RESTS_ON"]
    allowed = below(component) | ({"pyro_lvm"} if component in COMMAND_LINE else set())
    wrong = []
    for module in imports_of(name, source):
        top, *rest = module.split(".")
        if top == "pyro_lvm" and (rest[0] if rest else "pyro_lvm") not in allowed:
            wrong.append(f"{name} imports {module}, which '{component}' does not rest on")
        if top in ("models", "guides"):
            wrong.append(f"{name} imports {module}, which goes by the name of pyro_lvm.{module}")
        if top == "pyro" and component == "exact":
            wrong.append(f"{name} imports {module}, but exact answers are to be found without Pyro")
    return wrong


def test_imports_point_one_way(root: Path, tree: list[str]):
    files = [name for name in tree if name.endswith(".py") and name.startswith(("pyro_lvm/", "models/", "guides/"))]
    assert {component_of(name) for name in files} <= set(RESTS_ON)
    assert [fault for name in files for fault in violations(name, (root / name).read_text())] == []


def test_every_component_is_there(root: Path):
    places = {component: root / "pyro_lvm" / component for component in RESTS_ON if component != "pyro_lvm"}
    gone = [name for name, place in places.items() if not (place.is_dir() or place.with_suffix(".py").is_file())]
    assert gone == []


def test_library_stays_clear_of_the_two_folders_of_programs():
    free = [component for component in RESTS_ON if not below(component) & {"models", "guides"}]
    assert set(RESTS_ON) - set(free) == {"models", "guides", "zoo", "pyro_lvm", *COMMAND_LINE}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("pyro_lvm/fit/loop.py", "from pyro_lvm import models"),
        ("pyro_lvm/fit/loop.py", "import pyro_lvm.models.vae"),
        ("pyro_lvm/objectives/elbo.py", "def f():\n    from pyro_lvm.fit import fit"),
        ("pyro_lvm/objectives/elbo.py", "from ..evidence import log_likelihood"),
        ("pyro_lvm/diagnostics/curves.py", "from pyro_lvm.guides.amortized import Amortized"),
        ("pyro_lvm/evidence/memory.py", "import pyro_lvm"),
        ("pyro_lvm/distributions/wishart.py", "from pyro_lvm.priors import StandardNormal"),
        ("pyro_lvm/exact/ppca.py", "import pyro.distributions as dist"),
        ("pyro_lvm/exact/ppca.py", "from pyro import sample"),
        ("pyro_lvm/zoo/registry.py", "from pyro_lvm.cli import main"),
        ("models/vae.py", "from pyro_lvm.guides import Amortized"),
        ("guides/amortized.py", "from pyro_lvm.zoo import build"),
        ("guides/amortized.py", "from models import VAE"),
        ("pyro_lvm/something_new.py", ""),
    ],
)
def test_an_import_the_wrong_way_is_noticed(name: str, source: str):
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("pyro_lvm/objectives/elbo.py", "from .table import Table"),
        ("pyro_lvm/diagnostics/curves.py", "from pyro_lvm.fit import History\nfrom ..objectives import ELBO"),
        ("pyro_lvm/cli/commands.py", "from pyro_lvm import __version__, models"),
        ("guides/exact_ppca.py", "from pyro_lvm.exact import posterior\nimport pyro"),
    ],
)
def test_an_import_the_right_way_is_not(name: str, source: str):
    assert violations(name, source) == []
