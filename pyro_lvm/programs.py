"""Programs: the plate every model and guide shares, and how the library runs a user's program.

A *program* is any callable with `pyro.sample` statements. The zoo's have the signature `(x=None, *, size=None)`;
a user's own may accept `x` only.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import pyro
import pyro.poutine as poutine
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import transform_to

from pyro_lvm.capture import ProductChoices, Replayer
from pyro_lvm.configuration import Part

__all__ = [
    "Constant",
    "Model",
    "Pair",
    "Program",
    "constants_are_meant",
    "data_plate",
    "pair",
    "parameters_of",
    "tensors_of",
]

T = TypeVar("T", bound=Tensor)

_AT_ONCE = 4096  # data drawn from the prior predictive
_REPAID = 500  # replays of a captured graph that repay the capture, of so many data each


def data_plate(x: Tensor | None, size: int | None) -> pyro.plate:
    """The plate `"data"` at dim −1, the one place where model and guide agree on its size and its scale.

    Pyro does not notice when the plates of a model and its guide differ in size, so both get theirs here.

    Args:
        x: the batch, (B, *data_shape), or None to draw from the prior predictive.
        size: number of data in the whole set; B where left out. Larger than B, `x` is a minibatch and every site in
            the plate is scaled by size / B.

    Raises:
        ValueError: where both are left out, or `size` is smaller than the batch.

    Example:
        >>> import torch
        >>> plate = data_plate(torch.zeros(4, 3), size=100)
        >>> plate.size, plate.subsample_size, plate.dim
        (100, 4, -1)
    """
    if x is None:
        if size is None:
            raise ValueError("'x' and 'size' are both None: give data, or size=n to draw n data from the model.")
        return pyro.plate("data", size, dim=-1)
    batch = len(x)
    if size is None or size == batch:
        return pyro.plate("data", batch, dim=-1)
    if size < batch:
        raise ValueError(f"'size' is the number of data in the whole set: it is {size}, but 'x' holds {batch} of them.")
    # The subsample is given, not drawn: drawing one would permute `size` integers at every step, for nothing.
    return pyro.plate("data", size, subsample=torch.arange(batch, device=x.device), dim=-1)


class Model(Part):
    """A generative program, abstract: `forward(x=None, *, size=None)` runs it and returns the data site's value."""

    def sample(self, n: int) -> Tensor:
        """Draws n data from the prior predictive p(x), (n, *data_shape), without touching Pyro's global state.

        Many data are drawn some thousands at a time, unless they share a latent, and where it repays by replaying a
        captured graph.
        """
        if n < 1:
            raise ValueError(f"'n' is the number of data to draw and must be at least 1, not {n}.")
        program = Program(self)
        with torch.no_grad(), poutine.block():
            if n <= _AT_ONCE or program.shares_latents():
                return cast(Tensor, program(size=n))
            draw = Replayer(
                lambda _: [program(size=_AT_ONCE)],
                program.tensors,
                ProductChoices(),
                is_worth_it=lambda _: n > _REPAID * _AT_ONCE,
                what="the drawing of samples",
            )
            nothing = torch.empty(0, device=program.reference().device)
            result = torch.empty(0)
            for start in range(0, n, _AT_ONCE):
                drawn = draw(nothing)[0]
                if not start:  # all the memory at once: parts put together in the end would take twice as much
                    result = drawn.new_empty(n, *drawn.shape[1:])
                part = result[start : start + _AT_ONCE]
                part.copy_(drawn[: len(part)])
            return result


class Program:
    """A model or guide as the library runs it: its parameters are its own, and `size` reaches it if it takes one.

    Pyro keeps parameters in one store for the whole process, so two pairs trained in it can touch each other. Here
    every `pyro.param` statement is answered without that store: with the module's own tensor where the statement comes
    from `pyro.module` or a `PyroModule`, else (a bare `pyro.param("scale", ...)` of a user's function) with a tensor
    kept on the program itself.

    Args:
        program: the callable to run.
        partner: the other program of the pair; a bare parameter of the same name is shared with it, as in Pyro.
    """

    def __init__(self, program: Callable[..., Any], partner: Callable[..., Any] | None = None) -> None:
        if not callable(program):
            raise TypeError(f"a model or guide must be callable, but {program!r} is not.")
        self.original = program
        self.accepts_size = _accepts_size(program)
        self._pyro_modules = isinstance(program, nn.Module) and any(
            isinstance(module, PyroModule) for module in program.modules()
        )
        self._answers = _OwnParameters(
            _bare_parameters(program), {} if partner is None else _bare_parameters(partner), not self._pyro_modules
        )

    def __call__(self, x: Tensor | None = None, *, size: int | None = None) -> Any:
        """Runs the program on its own parameters and returns what it returns."""
        arguments: dict[str, Any] = {"size": size} if self.accepts_size and size is not None else {}
        if size is not None and x is None and not self.accepts_size:
            raise ValueError(f"{_name(self.original)} accepts no 'size', so it cannot be run without data.")
        data = () if x is None else (x,)
        if self._pyro_modules:
            return self._run_pyro_module(*data, **arguments)
        with self._answers:
            return self.original(*data, **arguments)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Every trainable tensor of the program: of its modules and of its bare `pyro.param` statements."""
        if isinstance(self.original, nn.Module):
            yield from self.original.parameters()
        for value, _ in self._answers.own.values():
            yield value

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The same with names, a bare parameter's being its site's."""
        if isinstance(self.original, nn.Module):
            yield from self.original.named_parameters()
        for name, (value, _) in self._answers.own.items():
            yield name, value

    def tensors(self) -> list[Tensor]:
        """All its parameters and buffers, each once."""
        module = self.module()
        return _once((*module.parameters(), *module.buffers()))

    def shares_latents(self) -> bool:
        """Whether data drawn from it share a latent, which is drawn once for all of them."""
        with torch.random.fork_rng():
            sites = poutine.trace(self).get_trace(size=2).nodes.values()
        drawn = [site for site in sites if site["type"] == "sample" and not site_is_subsample(site)]
        return any(not any(frame.vectorized for frame in site["cond_indep_stack"]) for site in drawn)

    def reference(self) -> Tensor:
        """A tensor with the program's device and precision: its first real parameter, or an empty one without any."""
        return next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))

    def module(self) -> nn.Module:
        """The program as a module to train: itself, or a holder of a function's bare parameters."""
        holder = nn.Module()
        if isinstance(self.original, nn.Module):
            holder.program = self.original
        for index, (value, _) in enumerate(self._answers.own.values()):
            holder.register_parameter(f"bare_{index}", value)
        return holder

    def _run_pyro_module(self, *args: Any, **arguments: Any) -> Any:
        # A PyroModule registers what is read from it in the store, handler or not: lend it an empty one.
        store = pyro.get_param_store()
        with store.scope(), self._answers:
            result = self.original(*args, **arguments)
            owned = {id(value) for value in self.parameters()}
            for name, value in store.named_parameters():
                if id(value) not in owned:
                    raise TypeError(
                        f"{_name(self.original)} is a PyroModule with a bare pyro.param({name!r}, ...), which would "
                        "not be trained: make it an attribute, nn.Parameter or PyroParam."
                    )
        return result


Pair = tuple[Program, Program | None]  # model and guide; None stands for the model's own prior


def pair(model: Callable[..., Any], guide: Callable[..., Any]) -> tuple[Program, Program]:
    """The two programs of a pair as the library runs them; see `Program`."""
    if model is guide:
        raise ValueError("'model' and 'guide' are the same program; the guide is the approximate posterior.")
    return Program(model, guide), Program(guide, model)


def parameters_of(programs: Pair) -> list[nn.Parameter]:
    """What of a pair is trained, each once.

    Raises:
        ValueError: where nothing is.
    """
    found = _once(p for program in programs if program is not None for p in program.parameters() if p.requires_grad)
    if not found:
        raise ValueError("neither 'model' nor 'guide' has a parameter to train.")
    return found


def tensors_of(programs: Pair) -> list[Tensor]:
    """All parameters and buffers of a pair, each once."""
    return _once(t for program in programs if program is not None for t in program.tensors())


def _once(tensors: Iterable[T]) -> list[T]:
    return list({id(tensor): tensor for tensor in tensors}.values())


@contextmanager
def constants_are_meant() -> Iterator[None]:
    """Keeps `pyro.module` from warning of parameters that need no gradient: who froze them knows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*requires_grad=False")
        yield


class Constant(Messenger):
    """While it is entered, a program's parameters are constants: gradients pass through what is computed, not to them.

    Args:
        program: the one to be run meanwhile.
        active: False makes this do nothing.
    """

    def __init__(self, program: Callable[..., Any], *, active: bool = True) -> None:
        super().__init__()
        self._program, self._active = program, active
        self._held: list[Tensor] = []
        self._quiet = ExitStack()

    def __enter__(self) -> "Constant":
        if self._active:
            self._quiet.enter_context(constants_are_meant())
        if self._active and isinstance(self._program, (Program, nn.Module)):
            for parameter in self._program.parameters():
                self._hold(parameter)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        while self._held:
            self._held.pop().requires_grad_(True)
        self._quiet.close()
        return super().__exit__(*error)

    def _pyro_post_param(self, msg: Any) -> None:
        # `pyro.module` hands over parameters that the module goes on using; any other statement is what it returns.
        if self._active and msg["value"] is not None:
            if msg["value"].is_leaf:
                self._hold(msg["value"])
            else:
                msg["value"] = msg["value"].detach()

    def _hold(self, parameter: Tensor) -> None:
        if parameter.requires_grad:
            self._held.append(parameter.requires_grad_(False))


_Bare = dict[str, tuple[nn.Parameter, Any]]  # name -> unconstrained value, constraint


class _OwnParameters(Messenger):
    """Answers `param` statements with the program's own tensors; the global store stays as it was."""

    def __init__(self, own: _Bare, partner: _Bare, answers_bare: bool) -> None:
        super().__init__()
        self.own, self.partner, self.answers_bare = own, partner, answers_bare

    def _pyro_param(self, msg: Any) -> None:
        if msg["done"]:
            return
        name, *initial = msg["args"]
        if initial and isinstance(initial[0], nn.Parameter):  # from pyro.module: the module's own tensor
            msg["value"], msg["done"] = initial[0], True
            return
        known = name in self.own or name in self.partner
        if not self.answers_bare or not (initial or known):
            return  # a PyroModule's statement, which finds its own value
        if not known:
            constraint = msg["kwargs"].get("constraint", torch.distributions.constraints.real)
            with torch.no_grad():
                start = initial[0]() if callable(initial[0]) else torch.as_tensor(initial[0])
                unconstrained = transform_to(constraint).inv(start.detach()).clone()
            self.own[name] = nn.Parameter(unconstrained), constraint
        value, constraint = self.own[name] if name in self.own else self.partner[name]
        constrained = transform_to(constraint)(value)
        constrained.unconstrained = lambda: value  # what Pyro's own param statements offer
        msg["value"], msg["done"] = constrained, True


def _bare_parameters(program: Callable[..., Any]) -> _Bare:
    # Kept on the program, so that whatever is called with it after `fit` sees what was trained, and so that they go
    # when the program goes. A bound method has no attributes of its own: its object's serve.
    holder = program.__self__ if inspect.ismethod(program) else program
    try:
        return cast(_Bare, holder.__dict__.setdefault("_bare_parameters", {}))
    except AttributeError:
        raise TypeError(f"{_name(program)} cannot hold parameters: make the program a function or a module.") from None


def _accepts_size(program: Callable[..., Any]) -> bool:
    signature = inspect.signature(program.forward if isinstance(program, nn.Module) else program)
    parameters = signature.parameters.values()
    return "size" in signature.parameters or (
        any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters) and isinstance(program, nn.Module)
    )


def _name(program: Callable[..., Any]) -> str:
    return f"the program '{getattr(program, '__name__', type(program).__name__)}'"
