"""`import torchvision` works after the cure, whether its operators load or not, and nothing imports it early."""

import subprocess
import sys

import pytest


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_works_after_the_cure() -> None:
    code = """
import gc, importlib.util, sys
from pyro_lvm.data.torchvision_ops import declare_missing_operators
first, second = declare_missing_operators(), declare_missing_operators()
gc.collect()
import torchvision
import torch
image = torchvision.transforms.functional.resize(torch.zeros(1, 8, 8), [4, 4])
assert image.shape == (1, 4, 4)
assert not second and not declare_missing_operators()
assert torchvision.extension._has_ops() is not first
"""
    python(code)


def test_working_operators_are_left_alone() -> None:
    # Stand-ins for a build that works: its library loads without complaint; then, its schemas are there already.
    code = """
import sys
import torch
from pyro_lvm.data import torchvision_ops
asked = []
original, torch.ops.load_library = torch.ops.load_library, asked.append
assert not torchvision_ops.declare_missing_operators()
assert len(asked) == sys.platform.startswith("linux")
torch.ops.load_library = original
own = torch.library.Library("torchvision", "FRAGMENT")
own.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
assert not torchvision_ops.declare_missing_operators()
assert torchvision_ops._LIBRARY is None
"""
    python(code)


def test_absent_torchvision_is_no_error() -> None:
    code = """
import importlib.util
importlib.util.find_spec = lambda name: None
from pyro_lvm.data import declare_missing_operators
assert not declare_missing_operators()
"""
    python(code)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["torchvision", "pyro_lvm.data.arrays"])
def test_imports_are_lazy(module: str) -> None:
    loaded = python(f"import sys, pyro_lvm.data; print({module!r} in sys.modules)")
    assert loaded == str(module.startswith("pyro_lvm"))
