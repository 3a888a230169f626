"""Bijections against autograd: log-determinants, inverses and their gradients, at weights drawn at scale 1 and 3.

Gates are for float64 unless they say otherwise. Numbers here are of order 1 to 100; 1e-8 leaves room for the condition
of maps whose slope comes near 0, and no room for a wrong term.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import constraints

from pyro_lvm.capture.tracing import trace
from pyro_lvm.transforms import (
    AutoregressiveTransform,
    Bijection,
    HouseholderTransform,
    PlanarTransform,
    SylvesterTransform,
    autoregressive,
    orthogonal_matrix,
    orthonormal,
)
from pyro_lvm.transforms.tanh_equation import solve_tanh

Q, EYE, ZERO = torch.eye(3)[:, :2], torch.eye(2), torch.zeros(2)

Numbers = tuple[Tensor, ...]
Family = tuple[Callable[..., Numbers], Callable[..., Bijection]]


def triangular(raw: Tensor, diagonal: Tensor) -> Tensor:
    return raw.triu(1) + torch.diag_embed(0.999 * diagonal.tanh())


def sylvester_numbers(scale: float, batch: tuple[int, ...], M: int, width: int) -> Numbers:
    shapes = ((width, width), (width,), (width, width), (width,), (width,))
    return tuple(scale * torch.randn(*batch, *shape) for shape in shapes)


def sylvester(q: Tensor, *numbers: Tensor, cache_size: int = 0) -> Bijection:
    r, r_tilde = triangular(*numbers[:2]), triangular(*numbers[2:4])
    return SylvesterTransform(q, r, r_tilde, numbers[4], cache_size=cache_size)


def width_of(M: int) -> int:
    return max(1, M // 2)


def orthogonal_numbers(scale: float, batch: tuple[int, ...], M: int) -> Numbers:
    return (scale * torch.randn(*batch, M, width_of(M)), *sylvester_numbers(scale, batch, M, width_of(M)))


def reflected_numbers(scale: float, batch: tuple[int, ...], M: int) -> Numbers:
    return (scale * torch.randn(*batch, M, M), *sylvester_numbers(scale, batch, M, M))


def reversal(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype).flip(0)


FAMILIES: dict[str, Family] = {
    "householder": (
        lambda scale, batch, M: (scale * torch.randn(*batch, 3, M),),
        HouseholderTransform,
    ),
    "planar": (
        lambda scale, batch, M: tuple(scale * torch.randn(*batch, *shape) for shape in ((M,), (M,), ())),
        PlanarTransform,
    ),
    "orthogonal": (
        orthogonal_numbers,
        lambda raw, *numbers, cache_size=0: sylvester(orthonormal(raw), *numbers, cache_size=cache_size),
    ),
    "reflected": (
        reflected_numbers,
        lambda v, *numbers, cache_size=0: sylvester(orthogonal_matrix(v), *numbers, cache_size=cache_size),
    ),
    "triangular": (
        lambda scale, batch, M: sylvester_numbers(scale, batch, M, M),
        lambda *numbers, cache_size=0: sylvester(reversal(numbers[0]), *numbers, cache_size=cache_size),
    ),
}

every_family = pytest.mark.parametrize("family", FAMILIES)


def made(family: str, scale: float, batch: tuple[int, ...], M: int, cache_size: int = 0) -> tuple[Bijection, Numbers]:
    draw, make = FAMILIES[family]
    numbers = tuple(number.requires_grad_() for number in draw(scale, batch, M))
    return make(*numbers, cache_size=cache_size), numbers


def jacobian(bijection: Bijection, z: Tensor) -> Tensor:
    """∂z'/∂z of every vector, (..., M, M); what one vector becomes depends on it alone."""
    z = z.detach().requires_grad_()
    y = bijection(z)
    rows = [torch.autograd.grad(y[..., i].sum(), z, retain_graph=True)[0] for i in range(z.shape[-1])]
    return torch.stack(rows, dim=-2)


# Values


@every_family
@pytest.mark.parametrize("M", [2, 5, 16])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_log_determinant_and_inverse(family: str, scale: float, M: int) -> None:
    bijection, _ = made(family, scale, (7,), M)
    z = 2 * torch.randn(3, 7, M)  # particles left of the batch
    y = bijection(z)
    log_det = bijection.log_abs_det_jacobian(z, y)
    assert log_det.shape == (3, 7)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian(bijection, z)).logabsdet, rtol=1e-8, atol=1e-8)
    back = bijection.inv(y)
    torch.testing.assert_close(bijection(back), y, rtol=1e-10, atol=1e-10)
    # Where the map is flat, rounding of z' weighs exp(−log_det) in z.
    torch.testing.assert_close(back, z, rtol=1e-8, atol=1e-8)


@every_family
def test_any_leading_dimensions_give_what_single_vectors_give(family: str) -> None:
    M = 4
    bijection, numbers = made(family, 1.0, (2, 1, 5), M)
    z = torch.randn(3, 1, 6, 5, M)
    y = bijection(z)
    log_det = bijection.log_abs_det_jacobian(z, y)
    assert y.shape == (3, 2, 6, 5, M)
    assert log_det.shape == (3, 2, 6, 5)
    one = FAMILIES[family][1](*(number[1, 0, 4] for number in numbers))
    torch.testing.assert_close(y[2, 1, 3, 4], one(z[2, 0, 3, 4]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det[2, 1, 3, 4], one.log_abs_det_jacobian(z[2, 0, 3, 4], y[2, 1, 3, 4]))
    torch.testing.assert_close(bijection.inv(y), z.expand(3, 2, 6, 5, M), rtol=1e-8, atol=1e-8)
    assert bijection.forward_shape((6, 5, M)) == bijection.inverse_shape((6, 5, M)) == (2, 6, 5, M)
    assert bijection.domain is constraints.real_vector
    assert bijection.codomain is constraints.real_vector


@every_family
def test_single_precision(family: str) -> None:
    """Against double precision: rounding is 1e-7, and what it is multiplied by is of order 100."""
    bijection, numbers = made(family, 1.0, (50,), 5)
    single = FAMILIES[family][1](*(number.detach().float() for number in numbers))
    z = torch.randn(50, 5)
    y, y_single = bijection(z), single(z.float())
    assert y_single.dtype == torch.float32
    torch.testing.assert_close(y_single.double(), y, rtol=2e-5, atol=2e-5)
    found = single.log_abs_det_jacobian(z.float(), y_single).double()
    torch.testing.assert_close(found, bijection.log_abs_det_jacobian(z, y), rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(single(single.inv(y_single)), y_single, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("M", "width"), [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("particles", [(), (2,)])
def test_vectors_of_any_shape_can_be_captured(M: int, width: int, particles: tuple[int, ...]) -> None:
    """Products of size 1 have other strides once the compiler has taken them apart."""
    half = 0.5 * torch.eye(width).expand(6, width, width)
    numbers = (orthonormal(torch.randn(6, M, width)), half, half, torch.zeros(6, width), torch.randn(6, width, M))
    inputs = q, r, r_tilde, bias, v = [number.clone().requires_grad_() for number in numbers]
    z = torch.randn(*particles, 6, M)

    def run() -> list[Tensor]:
        results = []
        for bijection in (SylvesterTransform(q, r, r_tilde, bias), HouseholderTransform(v)):
            y, back = bijection(z), bijection.inv(z)
            results.append((y * back).sum())
        return [gradient.detach() for gradient in torch.autograd.grad(sum(results, torch.zeros(())), inputs)]

    for found, expected in zip(trace(run, [*inputs, z])(*inputs, z), run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


# Gradients


@every_family
@pytest.mark.parametrize("M", [2, 5])
def test_gradients_of_both_directions(family: str, M: int) -> None:
    """Finite differences, by every number and the point: of z', the log-determinant and the inverse."""
    draw, make = FAMILIES[family]
    # Finite differences of 1e-6 err by the third derivative, which grows as a matrix nears singularity: a seed without.
    torch.manual_seed(3)
    numbers = tuple(number.requires_grad_() for number in draw(1.0, (2,), M))
    z = torch.randn(2, 2, M).requires_grad_()

    def forwards(z: Tensor, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        bijection = make(*numbers)
        y = bijection(z)
        return y, bijection.log_abs_det_jacobian(z, y)

    def backwards(y: Tensor, *numbers: Tensor) -> tuple[Tensor, Tensor]:
        bijection = make(*numbers)
        z = bijection.inv(y)
        return z, bijection.log_abs_det_jacobian(z, y)

    assert gradcheck(forwards, (z, *numbers), atol=1e-6, rtol=1e-5)
    assert gradcheck(backwards, (z, *numbers), atol=1e-6, rtol=1e-5)


# The cache


@every_family
def test_the_cache_answers_for_the_last_vector(family: str) -> None:
    bijection, _ = made(family, 1.0, (4,), 3, cache_size=1)
    z = torch.randn(4, 3)
    y = bijection(z)
    assert bijection(z) is y
    assert bijection.inv(y) is z
    assert bijection.inv(y.clone()) is not z
    log_det = bijection.log_abs_det_jacobian(z, y)
    torch.testing.assert_close(log_det, bijection.log_abs_det_jacobian(z.clone(), y), rtol=1e-14, atol=1e-14)
    bijection(torch.randn(4, 3))
    assert bijection.inv(y) is not z
    without = bijection.with_cache(0)
    assert without(z) is not without(z)
    assert without.with_cache(1).with_cache(1).inv.inv(z).shape == z.shape
    torch.testing.assert_close(without(z), y, rtol=1e-14, atol=1e-14)


@every_family
def test_a_draw_made_without_gradients_is_inverted_where_they_are_wanted(family: str) -> None:
    """PyTorch's own cache gives the draw's origin as a constant, and a gradient that lacks what passes through it."""
    bijection, numbers = made(family, 1.0, (4,), 3, cache_size=1)
    with torch.no_grad():
        y = bijection(torch.randn(4, 3))
        inside = bijection.inv(y)
    found, expected = ((bijection.inv(value) ** 2).sum() for value in (y, y.clone()))
    got, wanted = (torch.autograd.grad(value, numbers, retain_graph=True) for value in (found, expected))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert sum(g.abs().sum() for g in got) > 0
    with torch.no_grad():
        assert bijection.inv(y) is inside


def test_inverses_are_not_remembered() -> None:
    bijection = PlanarTransform(torch.randn(3), torch.randn(3), torch.randn(()), cache_size=1)
    y = torch.randn(3)
    assert bijection.inv(y) is not bijection.inv(y)


# Householder


def test_reflections_are_those_of_the_formula_in_their_order() -> None:
    v, z = torch.randn(6, 4, 5), torch.randn(3, 6, 5)
    expected = z
    for t in range(4):
        vector = v[:, t]
        expected = expected - 2 * vector * ((vector * expected).sum(-1) / vector.square().sum(-1)).unsqueeze(-1)
    torch.testing.assert_close(HouseholderTransform(v)(z), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((orthogonal_matrix(v) @ z.unsqueeze(-1)).squeeze(-1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vector_of_zeros_does_not_reflect(dtype: torch.dtype) -> None:
    v = torch.randn(4, 3, 5, dtype=dtype)
    v[:, 1] = 0
    v.requires_grad_()
    z = torch.randn(4, 5, dtype=dtype)
    y = HouseholderTransform(v)(z)
    tolerance = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(y, HouseholderTransform(v[:, [0, 2]])(z), rtol=tolerance, atol=tolerance)
    (gradient,) = torch.autograd.grad(y.square().sum() + y.sum(), v)
    assert gradient.isfinite().all()
    # A short vector still reflects as its direction does.
    short = HouseholderTransform(1e-5 * v[:, [0, 2]])(z)
    torch.testing.assert_close(short, HouseholderTransform(v[:, [0, 2]])(z), rtol=tolerance, atol=tolerance)


# Orthonormal columns


@pytest.mark.parametrize(
    ("M", "width"), [(2, 1), (2, 2), (5, 2), (5, 4), (5, 5), (16, 8), (16, 15), (16, 16), (40, 16)]
)
@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_columns_come_out_orthonormal(M: int, width: int, scale: float) -> None:
    a = scale * torch.randn(2, 500, M, width)
    q = orthonormal(a)
    assert q.shape == a.shape
    assert torch.linalg.matrix_norm(q.mT @ q - torch.eye(width), 2).max() < 1e-6
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    torch.testing.assert_close(q, u @ vh, rtol=1e-7, atol=1e-7)  # the nearest one (Higham 1989)


@pytest.mark.parametrize(("M", "width"), [(5, 2), (16, 8), (40, 16)])
def test_columns_come_out_orthonormal_in_single_precision(M: int, width: int) -> None:
    """To rounding, some 10 times 1.2e-7 in the norm of a 16×16 matrix."""
    q = orthonormal(3 * torch.randn(1000, M, width, dtype=torch.float32))
    assert torch.linalg.matrix_norm(q.mT @ q - torch.eye(width, dtype=torch.float32), 2).max() < 2e-6


@pytest.mark.parametrize(("M", "width", "factor"), [(32, 16, 20.0), (20, 16, 1000.0), (16, 16, 3e5)])
def test_the_documented_range_of_singular_values(M: int, width: int, factor: float) -> None:
    u, _, vh = torch.linalg.svd(torch.randn(200, M, width), full_matrices=False)
    values = torch.cat([torch.ones(200, 1), torch.rand(200, width - 2), torch.full((200, 1), 1 / factor)], -1)
    values[:, 1:-1] = values[:, 1:-1].clamp(min=1 / factor)
    values[100:, :-1] = 1.0  # all but one large: the start's scale is at its worst
    q = orthonormal(u @ (values.unsqueeze(-1) * vh))
    assert torch.linalg.matrix_norm(q.mT @ q - torch.eye(width), 2).max() < 1e-6


@pytest.mark.parametrize(("M", "width"), [(5, 2), (4, 3), (3, 3)])
def test_gradients_pass_through_the_iteration(M: int, width: int) -> None:
    a = torch.randn(3, M, width).requires_grad_()
    assert gradcheck(orthonormal, a, atol=1e-6, rtol=1e-5)
    # The same as those through the singular value decomposition.
    weights = torch.randn(3, M, width)
    u, _, vh = torch.linalg.svd(a, full_matrices=False)
    (expected,) = torch.autograd.grad((u @ vh * weights).sum(), a)
    (found,) = torch.autograd.grad((orthonormal(a) * weights).sum(), a)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthonormal(torch.zeros(5, 2)), torch.zeros(5, 2))


# Sylvester and planar


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HouseholderTransform(torch.ones(3)), r"'v' must have shape \(..., T, M\), .* not \(3,\)"),
        (lambda: orthogonal_matrix(torch.ones(3)), r"'v' must have shape \(..., T, M\), .* not \(3,\)"),
        (lambda: SylvesterTransform(torch.ones(3), EYE, EYE, ZERO), r"'q' must have shape \(..., M, M'\), not \(3,\)"),
        (lambda: SylvesterTransform(Q, torch.eye(3), EYE, ZERO), r"'r' must be \(..., 2, 2\), .* not \(3, 3\)"),
        (lambda: SylvesterTransform(Q, EYE, torch.ones(2), ZERO), r"'r_tilde' must be \(..., 2, 2\), .* not \(2,\)"),
        (lambda: SylvesterTransform(Q, EYE, EYE, torch.zeros(3)), r"'bias' must be \(..., 2\), .* not \(3,\)"),
        (lambda: SylvesterTransform(Q, EYE, EYE, torch.tensor(0.0)), r"'bias' must be \(..., 2\), .* not \(\)"),
    ],
)
def test_sizes_that_do_not_match_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_sylvester_is_its_formula_and_wider_than_the_space_it_is_none() -> None:
    draw, make = FAMILIES["orthogonal"]
    raw, *numbers = draw(1.0, (), 5)
    q, r, r_tilde = orthonormal(raw), triangular(*numbers[:2]), triangular(*numbers[2:4])
    z = torch.randn(5)
    expected = z + q @ r @ (r_tilde @ q.T @ z + numbers[4]).tanh()
    torch.testing.assert_close(make(raw, *numbers)(z), expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"'q' must have no more columns than rows.*not 3 of 2"):
        SylvesterTransform(torch.randn(2, 3), torch.eye(3), torch.eye(3), torch.zeros(3))


def test_planar_is_its_formula_and_bends_u_only_where_it_must() -> None:
    u, w, b, z = torch.randn(200, 5), torch.randn(200, 5), torch.randn(200), torch.randn(200, 5)
    y = PlanarTransform(u, w, b)(z)
    h = ((w * z).sum(-1) + b).tanh().unsqueeze(-1)
    bent = (y - z) / h
    inner, kept = (w * bent).sum(-1), (w * u).sum(-1) >= 0
    assert 50 < kept.sum() < 150
    assert (inner > -1).all()
    torch.testing.assert_close(bent[kept], u[kept], rtol=1e-9, atol=1e-9)
    away = bent - u
    torch.testing.assert_close(away, w * ((away * w).sum(-1) / w.square().sum(-1)).unsqueeze(-1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planar_without_a_direction_shifts(dtype: torch.dtype) -> None:
    u, b = torch.randn(3, dtype=dtype, requires_grad=True), torch.tensor(0.3, dtype=dtype)
    w = torch.zeros(3, dtype=dtype, requires_grad=True)
    bijection = PlanarTransform(u, w, b)
    z = torch.randn(3, dtype=dtype)
    y = bijection(z)
    torch.testing.assert_close(y, z + u * b.tanh())
    for gradient in torch.autograd.grad(y.sum() + bijection.log_abs_det_jacobian(z, y) + bijection.inv(y)[0], (u, w)):
        assert gradient.isfinite().all()


def test_the_scalar_equation_is_solved_over_its_range() -> None:
    """1e-10 relative to the larger of root and 1, up to p = 1000; s from 1e-14 to 1000, both signs."""
    p = torch.cat([torch.logspace(-6, 0, 61) - 1, torch.logspace(-6, 3, 91)])[:, None]
    s = torch.cat([-torch.logspace(-14, 3, 500), torch.zeros(1), torch.logspace(-14, 3, 500)])
    w = solve_tanh(p, s)
    low, high = (bound.expand_as(w) for bound in (s - p.abs() - 1, s + p.abs() + 1))
    for _ in range(70):
        middle = (low + high) / 2
        below = middle + p * middle.tanh() < s
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    assert ((w - low).abs() / w.abs().clamp(min=1)).max() < 1e-10
    assert (solve_tanh(p.float(), s.float()).double() - w).abs()[p.squeeze() > -0.999].max() < 1e-3
    assert torch.equal(solve_tanh(torch.tensor(-0.5), torch.zeros(3)), torch.zeros(3))


# Autoregressive


@pytest.mark.parametrize("M", [1, 2, 5, 16])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_autoregressive(M: int, scale: float) -> None:
    network = autoregressive(M, 3, (12,), reverse=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale / parameter.std().clamp(min=0.1) / parameter.shape[-1] ** 0.5)
    context = torch.randn(7, 3, requires_grad=True)
    bijection = AutoregressiveTransform(network, context, M)
    assert bijection.shape == (7, M)
    z = torch.randn(2, 7, M)
    y = bijection(z)
    log_det, J = bijection.log_abs_det_jacobian(z, y), jacobian(bijection, z)
    assert log_det.shape == (2, 7)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(J).logabsdet, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(bijection.inv(y), z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(J, J.triu(), rtol=0, atol=0)  # from the last coordinate to the first
    if M > 1:
        assert J.triu(1).abs().sum() > 0
    parameters = [context, *network.parameters()]
    again = bijection.inv(y.detach())  # the implicit function theorem, by hand
    weights = torch.randn_like(again)
    found = torch.autograd.grad((again * weights).sum(), parameters, allow_unused=True, retain_graph=True)
    pulled = torch.linalg.solve(J.mT, weights.unsqueeze(-1)).squeeze(-1)
    expected = torch.autograd.grad((-bijection(z) * pulled).sum(), parameters, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_autoregressive_starts_near_the_identity() -> None:
    network = autoregressive(4, 3, (64, 64))
    z = torch.randn(100, 4)
    y = AutoregressiveTransform(network, torch.randn(100, 3), 4)(z)
    assert (y - z).abs().max() < 0.2
