"""The parts of a page that a program writes, between two marks; all else in it is written by hand."""

from pathlib import Path


def filled(page: str, mark: str, text: str) -> str:
    """The page with the text between `<!-- mark: begin -->` and `<!-- mark: end -->`."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


def fill(path: Path, mark: str, text: str) -> None:
    """The same, of a file."""
    path.write_text(filled(path.read_text(), mark, text))
