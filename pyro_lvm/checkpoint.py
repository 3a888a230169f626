"""One file of a run's state: nested values with tensors in them, as safetensors with JSON in its header."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pyro_lvm.saving import write_atomically

__all__ = ["read_checkpoint", "write_checkpoint"]

_FORMAT = "pyro-lvm checkpoint 1"
_NO_DIGEST = "0" * 64  # stands in the header while the file is hashed


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a state; whatever happens, the old file or the new one is there, whole.

    Args:
        path: the file.
        state: dictionaries, lists and tuples of tensors, numbers, strings and None, nested.

    Raises:
        TypeError: for a value that is none of these, naming where it is, and for tensors of complex doubles.
        OSError: where the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_checkpoint(Path(folder) / "state", {"moments": [torch.ones(2)], "lr": 0.1, "betas": (0.9, 0.99)})
        ...     read_checkpoint(Path(folder) / "state")
        {'moments': [tensor([1., 1.])], 'lr': 0.1, 'betas': (0.9, 0.99)}
    """
    tensors: dict[str, Tensor] = {}
    # Python writes floats so that they are read again exactly, NaN and the infinities included.
    text = json.dumps(_packed(state, "", tensors), allow_nan=True)
    metadata = {"format": _FORMAT, "sha256": _NO_DIGEST, "state": text}
    try:
        content = safetensors.torch.save(tensors, metadata)
    except KeyError as error:
        raise TypeError(f"a checkpoint cannot hold tensors of type {error.args[0]}.") from error
    place = content.index(_NO_DIGEST.encode(), 0, _end_of_header(content))
    digest = hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, content[:place] + digest + content[place + len(digest) :])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote; nothing in the file is executed.

    Raises:
        ValueError: where the file is cut off, changed, or not one of ours.
        OSError: where it cannot be read.
    """
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : _end_of_header(content)])
        metadata = header["__metadata__"]
        found, digest = metadata["format"], metadata["sha256"].encode()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"'{path}' is damaged or no checkpoint: its header cannot be read.") from error
    if found != _FORMAT:
        raise ValueError(f"'{path}' is no checkpoint of this version of pyro-lvm: its format is {found!r}.")
    if hashlib.sha256(content.replace(digest, _NO_DIGEST.encode(), 1)).hexdigest().encode() != digest:
        raise ValueError(f"'{path}' is damaged: its content is not what was written, by its checksum.")
    state: dict[str, Any] = _unpacked(json.loads(metadata["state"]), safetensors.torch.load(content))
    return state


def _end_of_header(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _packed(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON can hold it; its tensors go to `tensors`, by their path in it."""
    if isinstance(value, Tensor):
        # A copy, since safetensors refuses tensors that share memory, as some optimisers' do.
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": path}
    if isinstance(value, dict):  # in pairs, since JSON's keys are strings and an optimiser's are numbers
        return {"dictionary": [[key, _packed(v, f"{path}/{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_packed(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold '{path[1:]}', which is a {type(value).__name__}.")


def _unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpacked(v, tensors) for v in value["tuple"])
    return {key: _unpacked(v, tensors) for key, v in value["dictionary"]}
