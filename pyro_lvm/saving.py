"""Saving and loading a pair: weights as safetensors, settings as JSON in the same file, nothing that is executed."""

import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pyro_lvm.configuration import configuration, rebuild
from pyro_lvm.programs import Program, pair

__all__ = ["TEMPORARY", "load", "save", "write_atomically"]

TEMPORARY = ".tmp"  # ends the names of files that are being written; one that stays behind was killed

_FORMAT = "pyro-lvm 1"


def save(path: str | Path, model: Callable[..., Any], guide: Callable[..., Any]) -> Path:
    """Writes a pair to one `.safetensors` file; nothing of an older file is lost if it fails.

    Programs made of `Part`s and layers of `torch.nn` can be made again from it. Of others, the weights alone are kept,
    and `load` needs the programs to put them into.

    Args:
        path: the file; a folder is given a `model.safetensors`.

    Returns:
        The file.

    Raises:
        OSError: where it cannot be written.

    Example:
        >>> from pyro_lvm import guides, models
        >>> model, guide = models.ProbabilisticPCA(5, 2), guides.LinearNormal(5, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again, _ = load(save(folder, model, guide))
        >>> bool((again.weight == model.weight).all())
        True
    """
    path = _file(Path(path))
    programs = pair(model, guide)
    modules = [p.original for p in programs if isinstance(p.original, nn.Module)]
    try:
        described = configuration({"model": modules[0], "guide": modules[1]}) if len(modules) == 2 else None
    except TypeError:
        described = None
    metadata = {"format": _FORMAT, "version": version("pyro-lvm"), "programs": json.dumps(described)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in _tensors(programs).items()}
    write_atomically(path, _in_order(safetensors.torch.save(tensors, metadata)))
    return path


def _in_order(content: bytes) -> bytes:
    """A safetensors file whose metadata are sorted: it has them in another order each time, and files would differ."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def load(
    path: str | Path, into: tuple[Callable[..., Any], Callable[..., Any]] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Reads a pair written by `save`; the file can name known classes only and is never executed.

    Args:
        path: the file, or a folder with a `model.safetensors`.
        into: the programs to fill with the weights, for those that the file cannot describe.

    Returns:
        Model and guide.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not one of ours, is damaged, or does not fit the programs.
    """
    path = _file(Path(path))
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved pair at '{path}': give the file that `save` or a run wrote.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"'{path}' is damaged or no safetensors file: {error}.") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"'{path}' was not written by pyro_lvm.save, or by another version of its format.")
    if into is None:
        described = json.loads(metadata["programs"])
        if described is None:
            raise ValueError(
                f"'{path}' holds weights only, of programs it could not describe: build them, pass into=(model, guide)."
            )
        with torch.random.fork_rng():  # new modules draw their weights, which are replaced at once
            made = rebuild(described)
        into = made["model"], made["guide"]
    _fill(into, tensors, path)
    return into


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, the old one or the new one is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, nor need it be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, which is the folder's content
        finally:
            os.close(folder)


def _file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() else path


def _tensors(programs: tuple[Program, Program]) -> dict[str, Tensor]:
    """Every tensor of a pair once, by name; what the guide shares with the model is the model's."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for role, program in zip(("model", "guide"), programs, strict=True):
        tensors = dict(program.named_parameters())
        if isinstance(program.original, nn.Module):
            tensors |= program.original.state_dict(keep_vars=True)
        for name, tensor in tensors.items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{role}.{name}"] = tensor
    return found


def _fill(into: tuple[Callable[..., Any], Callable[..., Any]], tensors: dict[str, Tensor], path: Path) -> None:
    own = _tensors(pair(*into))
    if own.keys() != tensors.keys():
        different = sorted(own.keys() ^ tensors.keys())
        raise ValueError(f"'{path}' holds other parameters than the programs have: they differ in {different[:3]}.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise ValueError(
                    f"'{path}' holds '{name}' of shape {tuple(tensor.shape)}, the program's is "
                    f"{tuple(own[name].shape)}."
                )
            own[name].data = tensor.to(own[name].device)
