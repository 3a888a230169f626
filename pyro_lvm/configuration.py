"""Parts that remember how they were made, so that a file of settings and weights is enough to make them again."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Part", "configuration", "rebuild"]

_PARTS: dict[str, type["Part"]] = {}


class Part(nn.Module):
    """A module that remembers its constructor's arguments, abstract; networks, densities and programs derive from it.

    Derive your own parts from it too and `save` and `load` know them: the arguments must be numbers, strings, tuples,
    dictionaries, activation classes of `torch.nn`, or modules that are parts or layers of `torch.nn` themselves.
    """

    arguments: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "arguments", {})  # of a part whose class has no constructor of its own

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        _PARTS[f"{cls.__module__}.{cls.__qualname__}"] = cls
        if "__init__" in cls.__dict__:
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]


def _remembering(initialise: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(initialise)

    @functools.wraps(initialise)
    def __init__(self: Part, *args: Any, **keywords: Any) -> None:
        bound = signature.bind(self, *args, **keywords)
        initialise(self, *args, **keywords)
        # Past nn.Module's __setattr__, which would register the modules among the arguments a second time. The last
        # assignment is the outermost class's, so a subclass's arguments win over its base's.
        object.__setattr__(self, "arguments", dict(list(bound.arguments.items())[1:]))

    return __init__


def configuration(programs: dict[str, nn.Module]) -> dict[str, Any]:
    """The settings of some modules as JSON values; a module met twice is written once and referred to after.

    Raises:
        TypeError: for a module that is neither a `Part` nor a layer of `torch.nn`, or an argument JSON cannot hold.
    """
    seen: dict[int, int] = {}
    return {name: _describe(program, name, seen) for name, program in programs.items()}


def rebuild(description: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `configuration`: modules with fresh weights.

    Only parts that are already imported and classes of `torch.nn` are made; a file cannot name anything else.

    Raises:
        ValueError: where the description names an unknown class.
    """
    made: list[Any] = []
    return {name: _make(value, made) for name, value in description.items()}


def _describe(value: Any, path: str, seen: dict[int, int]) -> Any:
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return {"reference": seen[id(value)]}
        if isinstance(value, Part):
            kind, arguments = f"{type(value).__module__}.{type(value).__qualname__}", value.arguments
        elif type(value).__module__.startswith("torch.nn.modules"):
            kind, arguments = f"torch.nn.{type(value).__name__}", _layer_arguments(value, path)
        else:
            raise TypeError(
                f"'{path}' is a {type(value).__name__}, and how it was made is unknown: derive it from pyro_lvm.Part,"
                " or save its weights alone and give `load` the modules to fill with `into=(model, guide)`."
            )
        described = {k: _describe(v, f"{path}.{k}", seen) for k, v in arguments.items()}
        seen[id(value)] = len(seen)
        return {"class": kind, "arguments": described}
    if isinstance(value, type) and value.__module__.startswith("torch.nn.modules"):
        return {"type": value.__name__}
    if isinstance(value, (list, tuple)):
        return [_describe(v, f"{path}[{i}]", seen) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {"dictionary": {str(k): _describe(v, f"{path}.{k}", seen) for k, v in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"'{path}' is a {type(value).__name__}, which a file of settings cannot hold.")


def _layer_arguments(layer: nn.Module, path: str) -> dict[str, Any]:
    if isinstance(layer, (nn.Sequential, nn.ModuleList)):
        return {"*": list(layer)}
    parameters = inspect.signature(type(layer)).parameters.values()
    # A layer without a constructor of its own, such as Tanh, has Module's: *args, **kwargs.
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [n for n in named if n not in ("device", "dtype")]
    try:
        values = {name: getattr(layer, name) for name in names}
    except AttributeError as error:
        raise TypeError(
            f"'{path}', a torch.nn.{type(layer).__name__}, does not tell how it was made: {error}."
        ) from None
    # A layer's flag `bias` becomes the tensor itself, or None.
    return {k: v is not None if k == "bias" and (v is None or isinstance(v, Tensor)) else v for k, v in values.items()}


def _make(value: Any, made: list[Any]) -> Any:
    if isinstance(value, list):
        return tuple(_make(v, made) for v in value)
    if not isinstance(value, dict):
        return value
    if "reference" in value:
        return made[value["reference"]]
    if "type" in value:
        return _torch_class(value["type"])
    if "dictionary" in value:
        return {k: _make(v, made) for k, v in value["dictionary"].items()}
    kind = value["class"]
    arguments = {k: _make(v, made) for k, v in value["arguments"].items()}
    if kind in _PARTS:
        module: nn.Module = _PARTS[kind](**arguments)
    elif kind.startswith("torch.nn."):
        cls = _torch_class(kind.removeprefix("torch.nn."))
        if "*" in arguments:  # a list takes its modules as one, a sequence one by one
            module = cls(arguments["*"]) if cls is nn.ModuleList else cls(*arguments["*"])
        else:
            module = cls(**arguments)
    else:
        raise ValueError(
            f"the file names the class {kind!r}, which is not known here: import its module before loading."
        )
    made.append(module)
    return module


def _torch_class(name: str) -> type[nn.Module]:
    cls = getattr(torch.nn, name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"the file names {name!r} as a class of torch.nn, which it is not.")
    return cls
