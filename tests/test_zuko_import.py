"""Importing zuko switches off argument validation; importing it where the library does, does not."""

import subprocess
import sys
from pathlib import Path

import pytest

SHOW = "from torch.distributions import Distribution, Normal\nimport pyro.distributions as dist\n"


def python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", SHOW + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_the_trap_is_still_there(tmp_path: Path) -> None:
    assert python("import zuko; print(Distribution._validate_args)", tmp_path) == "False"


def test_validation_is_on_after_our_import(tmp_path: Path) -> None:
    code = """
import pyro_lvm.transforms.zuko_transforms
wrong = 0
for normal in (Normal, dist.Normal):
    try:
        normal(0.0, -1.0)
    except ValueError:
        wrong += 1
print(Distribution._validate_args and dist.is_validation_enabled(), wrong, sep="")
"""
    assert python(code, tmp_path) == "True2"


@pytest.mark.parametrize(
    "first", ["import zuko", pytest.param("Distribution.set_default_validate_args(False)", marks=pytest.mark.slow)]
)
def test_who_had_it_off_keeps_it_off(first: str, tmp_path: Path) -> None:
    code = f"{first}\nimport pyro_lvm.transforms.zuko_transforms\nprint(Distribution._validate_args)"
    assert python(code, tmp_path) == "False"


def test_the_library_imports_zuko_late(tmp_path: Path) -> None:
    assert python("import sys, pyro_lvm; print('zuko' in sys.modules)", tmp_path) == "False"
