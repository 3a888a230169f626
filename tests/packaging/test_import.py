"""What an import does, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest


def python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # -c puts the folder it runs in on the module path.
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["models", "guides"])
@pytest.mark.parametrize("statement", ["import {}", "from {} import *"])
def test_the_two_folders_refuse_their_bare_names(name: str, statement: str, root: Path):
    done = python(statement.format(name), root)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: this folder is the package pyro_lvm.{name}: import it by that name."


# Without the state of Python's own `random`, which Rich draws from as it is imported; nothing of ours reads it.
STATE = """
import logging, sys
import numpy, pyro, torch
import pyro.distributions.util, pyro.infer.util, pyro.poutine.util

def state():
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "PyTorch's random state": torch.get_rng_state().tolist(),
        "NumPy's random state": str(numpy.random.get_state()),
        "NumPy's errors": numpy.geterr(),
        "PyTorch's validation": torch.distributions.Distribution._Distribution__validate_args
            if hasattr(torch.distributions.Distribution, "_Distribution__validate_args")
            else torch.distributions.Distribution._validate_args,
        "Pyro's validation": [
            pyro.distributions.util.is_validation_enabled(),
            pyro.infer.util.is_validation_enabled(),
            pyro.poutine.util.is_validation_enabled(),
        ],
        "Pyro's parameters": list(pyro.get_param_store().keys()),
        "handlers of the root logger": list(logging.getLogger().handlers),
        "excepthook": sys.excepthook,
    }

before = state()
import pyro_lvm
after = state()
assert before["Pyro's validation"] == [True] * 3 and before["Pyro's parameters"] == [], before
changed = [name for name in before if before[name] != after[name]]
assert not changed, changed
"""

# Each takes a good part of a second, and no script needs it before it draws or converts something.
LATE = ["arviz", "jsonargparse", "matplotlib.pyplot", "seaborn", "sklearn", "torchvision", "xarray", "h5netcdf"]


def test_import_leaves_the_process_as_it_was_and_loads_no_more_than_needed(tmp_path: Path):
    code = STATE + f"early = [name for name in {LATE} if name in sys.modules]\nassert not early, early\n"
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert list(tmp_path.iterdir()) == []
