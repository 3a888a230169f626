"""The one progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]


@contextmanager
def progress_bar(description: str, total: int, shown: bool = True) -> Iterator[Advance]:
    """A bar on the terminal, and nothing at all where there is none or it is not wanted.

    Yields:
        A function to call with the number of steps done since the last call and a few words to show.
    """
    # Imported here because Rich, on import, draws from Python's random numbers, which are the caller's.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    remaining = (TimeRemainingColumn(), TextColumn("{task.fields[words]}"))
    silent = not (shown and console.is_terminal)
    with Progress(*columns, *remaining, console=console, disable=silent) as bar:
        task = bar.add_task(description, total=total, words="")

        def advance(steps: int, words: str = "") -> None:
            bar.update(task, advance=steps, words=words)

        yield advance
