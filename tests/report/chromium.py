"""A page as a browser shows it, where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
)

needs_chromium = pytest.mark.skipif(_BROWSER is None, reason="there is no Chromium on the PATH")


def opened(page: Path, fragment: str, profile: Path) -> tuple[str, list[str]]:
    """The document once its script has run, and what the console says."""
    assert _BROWSER is not None
    command = [_BROWSER, *_OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
