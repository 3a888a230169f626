"""Runs the examples and shows what they print and draw in docs/examples.md.

    OMP_NUM_THREADS=1 python -m benchmarks.examples_page [--render] [names ...]

About six minutes on 2 cores for all; `--render` runs none. Those that are not run stay as docs/examples.json has them.
"""

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.marks import fill

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SCRIPTS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}
RECORDED = DOCS / "examples.json"


def main() -> None:
    """Runs what is asked for and renders the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *SCRIPTS], help="examples; all where left out")
    parser.add_argument("--render", action="store_true", help="run none")
    options = parser.parse_args()
    recorded: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    for name in [] if options.render else options.names or SCRIPTS:
        recorded[name] = run(name)
        RECORDED.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n")
    fill(DOCS / "examples.md", "examples", "\n\n".join(section(name, recorded.get(name)) for name in SCRIPTS))


def run(name: str) -> dict[str, Any]:
    """Runs one as a user would, in a folder of its own, and keeps its picture."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, SCRIPTS[name]], cwd=folder, check=True, capture_output=True, text=True)
        picture = Path(folder) / "runs" / f"{name}.png"
        if picture.exists():
            shutil.copy(picture, DOCS / "pictures" / f"example-{name}.png")
        return {"printed": done.stdout.rstrip(), "picture": picture.exists()}


def section(name: str, record: dict[str, Any] | None) -> str:
    """An example: what it is for, and where it was run what it printed and drew."""
    title, _, text = (ast.get_docstring(ast.parse(SCRIPTS[name].read_text())) or "").partition("\n\n")
    title = " ".join(title.split()).removesuffix(".")
    lines = [f"## {title}", ""]
    if text:
        lines += [" ".join(text.split("\n\n")[0].split()), ""]
    command = f"[`python examples/{name}.py`](../examples/{name}.py)"
    if record is None:
        return "\n".join((*lines, f"{command} was not run here yet."))
    lines += [f"{command} prints", ""]
    lines += ["```text", record["printed"], "```"]
    if record["picture"]:
        lines += ["", "and draws", "", f"![{title}: the picture that {name}.py draws](pictures/example-{name}.png)"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
