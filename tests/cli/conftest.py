"""A small trained run, and the command line called in this process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calls import SMALL, Call, Called

from pyro_lvm import workflow
from pyro_lvm.cli import main


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command; its status and what it printed."""

    def run(*argv: object) -> Called:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in argv])
        except SystemExit as exit_:  # argparse's, after --help
            status = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Called(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, for tests that only read it or add to it."""
    path = tmp_path_factory.mktemp("runs") / "vae"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # its twin in the tests is made under float64
    argv = ["train", "vae", "--latent-dim", "4", "--hidden-features", "16", "--run-dir", str(path), *SMALL]
    assert main(argv) == 0
    torch.set_default_dtype(before)
    return path


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """Forty binary pictures of one's own, without any split."""
    path = tmp_path / "pixels.npy"
    np.save(path, np.random.default_rng(0).integers(0, 2, (40, 3, 3)))
    return path


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the report's figures, which take longer than the training of a test."""

    def write(path: Path, **_: object) -> Path:
        path.write_text("<html></html>")
        return path

    monkeypatch.setattr(workflow, "write_report", write)
