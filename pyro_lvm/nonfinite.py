"""Where a number that is not finite first appeared in a pair: the site and the layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_lvm.objectives.table import Table, run
from pyro_lvm.programs import Pair, Program


class NonFiniteError(FloatingPointError):
    """A loss or gradient that is NaN or infinite, with where it was met and where it first appeared.

    Attributes:
        epoch, step: from 0.
        site: name of the sample site, where one could be blamed.
        layer: name of the layer or parameter, where one could be blamed.
    """

    def __init__(self, message: str, epoch: int, step: int, site: str | None, layer: str | None) -> None:
        super().__init__(message)
        self.epoch, self.step, self.site, self.layer = epoch, step, site, layer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.epoch, self.step, self.site, self.layer)


@dataclass(frozen=True)
class Fault:
    """The first value that is not finite."""

    what: str
    site: str | None
    layer: str | None

    def __str__(self) -> str:
        where = [f"site '{self.site}'"] if self.site else []
        where += [f"layer '{self.layer}'"] if self.layer else []
        return f"{self.what} is not finite at {' and '.join(where) or 'no site or layer that could be named'}"


def locate(programs: Pair, *args: Any, **kwargs: Any) -> Fault | None:
    """Runs a pair with every layer and site watched; None where all values are finite.

    Pyro's validation is off meanwhile: it would stop at the first bad parameter without saying which layer made it.
    """
    watch = _Watch()
    with pyro.validation_enabled(False), _hooked(programs, watch), watch:
        try:
            table = run(*programs, args, kwargs)
        except ValueError:  # a pair without a table: its latents are enumerated in the model alone
            table = Table({}, 1)
    if not table.sites and (watch.layer or watch.site):
        return Fault("the output of a layer" if watch.layer else "a value", watch.site, watch.layer)
    bad = [site.name for site in table.sites.values() if not (_finite(site.log_p) and _finite(site.log_q))]
    if not bad:
        return None
    if watch.layer is None and watch.site is None:
        return Fault("a log-probability", bad[0], None)
    what = "the output of a layer" if watch.layer else "a value or a parameter of a density"
    return Fault(what, watch.site or bad[0], watch.layer)


def locate_gradient(programs: tuple[Program, Program], *args: Any, **kwargs: Any) -> Fault:
    """The site and the parameter of the first gradient that is not finite, forward values being finite."""
    parameters = {
        f"{role}.{name}": parameter
        for role, program in zip(("model", "guide"), programs, strict=True)
        for name, parameter in program.named_parameters()
        if parameter.requires_grad
    }
    with torch.enable_grad(), pyro.validation_enabled(False):
        table: Table = run(*programs, args, kwargs)
        for site in table.sites.values():
            total = site.log_weight.sum()
            if not total.requires_grad:
                continue
            gradients = torch.autograd.grad(total, list(parameters.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None and not _finite(gradient):
                    return Fault("a gradient", site.name, name)
    bad = [n for n, p in parameters.items() if p.grad is not None and not _finite(p.grad)]
    return Fault("a gradient", None, bad[0] if bad else None)


class _Watch(Messenger):
    """Remembers the first layer and the first site that met a number that is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer: str | None = None
        self.site: str | None = None

    def _pyro_post_sample(self, msg: Any) -> None:
        if self.site is None and isinstance(msg["value"], Tensor):
            parameters = [msg["value"], *_parameters(msg["fn"])]
            # Minus infinity is a parameter like any other: the logit of an impossible category.
            if not all(_finite(value.clamp_min(0)) for value in parameters):
                self.site = msg["name"]

    def hook(self, name: str) -> Any:
        def remember(module: nn.Module, inputs: Any, output: Any) -> None:
            if self.layer is None and isinstance(output, Tensor) and not _finite(output):
                self.layer = name

        return remember


@contextmanager
def _hooked(programs: Pair, watch: _Watch) -> Iterator[None]:
    with ExitStack() as stack:
        for role, program in zip(("model", "guide"), programs, strict=True):
            if program is not None and isinstance(program.original, nn.Module):
                for name, module in program.original.named_modules(prefix=role):
                    handle = module.register_forward_hook(watch.hook(name))
                    stack.callback(handle.remove)
        yield


def _parameters(fn: Any) -> list[Tensor]:
    """The tensors that a distribution is made of."""
    while isinstance(fn, (torch.distributions.Independent, torch.distributions.TransformedDistribution)):
        fn = fn.base_dist
    return [value for value in vars(fn).values() if isinstance(value, Tensor)]


def _finite(values: Tensor) -> bool:
    return not values.is_floating_point() or bool(values.isfinite().all())
