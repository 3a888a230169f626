"""Attributes: a direction in the latent space that gives data what others have, and how often it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from pyro_lvm.diagnostics.centres import Centres
from pyro_lvm.diagnostics.figures import is_image
from pyro_lvm.diagnostics.randomness import seeded
from pyro_lvm.diagnostics.strips import draw_strips

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def attribute_vector(
    model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, has: Tensor, *, seed: int | None = None
) -> dict[str, Tensor]:
    r"""The mean latent of data that have an attribute less that of data that do not, $v = \bar z_1 - \bar z_0$.

    Latents are $z_n = E_q[z \mid x_n]$; every continuous latent of a datum has a vector.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data with and without it, (N, *data_shape).
        has: whether a datum has it, booleans (N,), `labels == 3` say.
        seed: makes the result repeatable and leaves the caller's random state alone; draws are made only where a
            density tells neither mean nor mode.

    Returns:
        By site, the vector, of the shape of the latent of one datum.

    Raises:
        ValueError: where `has` is no boolean for each datum, or all data have it or none has.

    References:
        Larsen, Sønderby, Larochelle & Winther (2016), Autoencoding beyond Pixels Using a Learned Similarity Metric.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2)
        >>> x = torch.cat((torch.zeros(3, 5), torch.ones(3, 5)))
        >>> attribute_vector(model, guides.ExactPPCA(model), x, torch.arange(6) > 2)["z"].shape
        torch.Size([2])
    """
    _check_attribute(x, has, "has", "x")
    with seeded(seed):
        return _vector(Centres(model, guide, x), x, has)


@final
@dataclass(frozen=True)
class Share:
    """How many of some data something is true of.

    Example:
        >>> print(Share(90, 100))
        0.900 ± 0.030 of 100
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, p."""
        return self.count / self.total

    @property
    def standard_error(self) -> float:
        """√(p (1 − p) / n), the binomial's; 0 at p = 0 and 1, where what is known is p to within about 3 / n."""
        return (self.value * (1 - self.value) / self.total) ** 0.5

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f} of {self.total}"


@final
@dataclass(frozen=True)
class AttributeSuccess:
    """How often an attribute's vector gives data the attribute, as an independent classifier sees it.

    Attributes:
        vector: by site; see `attribute_vector`.
        before: of held-out data without the attribute, decoded as they are, the share the classifier takes for data
            that have it.
        after: the same with the vector added to their latents.
        accuracy: the share of all held-out data that the classifier is right about: what its word is worth.
    """

    vector: dict[str, Tensor]
    before: Share
    after: Share
    accuracy: Share

    def __str__(self) -> str:
        return (
            f"taken to have the attribute: {self.before} before, {self.after} after; classifier right about "
            f"{self.accuracy}"
        )


def attribute_success(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    has: Tensor,
    held_out: Tensor,
    held_out_has: Tensor,
    *,
    strength: float = 1.0,
    classifier: Any = None,
    seed: int | None = None,
) -> AttributeSuccess:
    r"""Decodes $z + a\, v$ for held-out data without an attribute, and asks a classifier whether they have it now.

    Vector and classifier are learned from the same data with labels; the classifier sees the data, never a latent. What
    it says of decoded data is worth what it says of data: its accuracy on the held-out ones stands beside, and what it
    says of these data decoded as they are.

    Args:
        model, guide: the pair; programs that accept only `x` are taken too.
        x: data with and without the attribute, (N, *data_shape).
        has: whether a datum has it, booleans (N,).
        held_out: other data, (N', *data_shape); those without the attribute are moved.
        held_out_has: whether these have it, booleans (N',).
        strength: a, multiples of the vector.
        classifier: one of scikit-learn's, not yet fitted, of data laid out flat; five nearest neighbours where left
            out. It is cloned.
        seed: makes the result repeatable and leaves the caller's random state alone; draws are made only where a
            density tells neither mean nor mode.

    Returns:
        The shares before and after and the classifier's accuracy, with binomial standard errors.

    Raises:
        ValueError: as `attribute_vector` does, for both sets of data.

    References:
        Larsen, Sønderby, Larochelle & Winther (2016), Autoencoding beyond Pixels Using a Learned Similarity Metric.

    Example:
        >>> from pyro_lvm import guides, models
        >>> _ = torch.manual_seed(0)
        >>> model = models.ProbabilisticPCA(5, latent_dim=2, noise_scale=0.1)
        >>> x = model.sample(200)
        >>> has = x[:, 0] > 0
        >>> success = attribute_success(model, guides.ExactPPCA(model), x[:100], has[:100], x[100:], has[100:])
        >>> success.before.value < success.after.value
        True
    """
    from sklearn.base import clone  # here, since it takes a second to import
    from sklearn.neighbors import KNeighborsClassifier

    _check_attribute(x, has, "has", "x")
    _check_attribute(held_out, held_out_has, "held_out_has", "held_out")
    with seeded(seed):
        centres = Centres(model, guide, x)
        vector = _vector(centres, x, has)
        latents = centres.encode(held_out[~held_out_has])
        decoded = {a: centres.decode(_moved(centres, latents, vector, a)) for a in (0.0, strength)}
    judge = KNeighborsClassifier() if classifier is None else clone(classifier)
    judge.fit(_flat(x), has.cpu().numpy())

    def share(data: Tensor, expected: Tensor) -> Share:
        right = judge.predict(_flat(data)) == expected.cpu().numpy()
        return Share(int(right.sum()), len(right))

    everywhere = torch.ones(len(decoded[strength]), dtype=torch.bool)
    return AttributeSuccess(
        vector,
        before=share(decoded[0.0], everywhere),
        after=share(decoded[strength], everywhere),
        accuracy=share(held_out, held_out_has),
    )


def plot_attribute(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    vector: Mapping[str, Tensor],
    *,
    strengths: Sequence[float] = _STRENGTHS,
    shape: tuple[int, ...] | None = None,
    levels: int | None = None,
    seed: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws data to which an attribute is added little by little, a row a datum, pictures after the datum itself.

    Args:
        model, guide, seed: see `attribute_vector`.
        x: the data, best without the attribute, (B, *data_shape).
        vector: by site, from `attribute_vector` or of your own.
        strengths: multiples of the vector, from left to right.
        shape: of a datum, for pictures that come as vectors.
        levels: number of grey or colour levels; see `plot_samples`.
        ax: the axes to draw into; a new figure's where left out.

    Returns:
        The axes. Data that are no pictures are drawn as lines, one colour a datum.

    Raises:
        ValueError: where `vector` is of other latents, or there are no strengths.

    Example:
        >>> from pyro_lvm import data, zoo
        >>> digits = data.load("digits")
        >>> model, guide, _ = zoo.build("vae", digits, latent_dim=3)
        >>> ax = plot_attribute(model, guide, digits.test[:2], {"z": torch.ones(3)}, strengths=(0, 1), levels=17)
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['x', '0', '1']
    """
    if not len(strengths):
        raise ValueError("'strengths' must hold at least one multiple of the vector.")
    with seeded(seed):
        centres = Centres(model, guide, x)
        latents = centres.encode(x)
        shapes = {name: tuple(latents[name][0].shape) for name in centres.continuous}
        given = {name: tuple(v.shape) for name, v in vector.items()}
        if not given or not given.items() <= shapes.items():
            raise ValueError(f"'vector' must hold vectors of latents of a datum, of shapes {shapes}, but has {given}.")
        decoded = torch.stack([centres.decode(_moved(centres, latents, vector, float(a))) for a in strengths], 1)
    names = [f"{a:.3g}" for a in strengths]
    if is_image(shape or tuple(x.shape[1:])):
        decoded, names = torch.cat((x.unsqueeze(1).to(decoded), decoded), 1), ["x", *names]
    return draw_strips(
        decoded,
        [float(a) for a in strengths],
        [str(b + 1) for b in range(len(x))],
        names,
        across="multiples of the attribute's vector added to the latent of x",
        down="datum",
        shape=shape,
        levels=levels,
        ax=ax,
    )


def _check_attribute(x: Tensor, has: Tensor, name: str, data: str) -> None:
    if has.dtype != torch.bool or has.shape != x.shape[:1]:
        raise ValueError(
            f"'{name}' must be a boolean for each of the {len(x)} data in '{data}', as labels == 3 is, but has dtype "
            f"{has.dtype} and shape {tuple(has.shape)}."
        )
    if bool(has.all()) or not bool(has.any()):
        raise ValueError(f"'{name}' must be true of some data and false of others, but is the same for all.")


def _vector(centres: Centres, x: Tensor, has: Tensor) -> dict[str, Tensor]:
    z, has = centres.encode(x), has.to(centres.device)
    return {name: z[name][has].mean(0) - z[name][~has].mean(0) for name in centres.continuous}


def _moved(
    centres: Centres, latents: Mapping[str, Tensor], vector: Mapping[str, Tensor], strength: float
) -> dict[str, Tensor]:
    """z + a v, put back onto the sphere where z lies on one."""
    moved = dict(latents)
    for name, v in vector.items():
        z = latents[name] + strength * v.to(latents[name])
        moved[name] = z / z.norm(dim=-1, keepdim=True) if name in centres.spheres else z
    return moved


def _flat(x: Tensor) -> Any:
    return x.detach().cpu().double().reshape(len(x), -1).numpy()
