"""How long a datum is when a general-purpose compressor has done its best."""

import zlib
from collections.abc import Iterator
from math import log

import numpy as np
import torch
from torch import Tensor


def complexity(x: Tensor) -> Tensor:
    r"""$L(x)$, the length of each datum after compression, nats: $8 \log 2$ a byte.

    Values are bytes, or single bits where all of the data are zeros and ones. They are compressed by DEFLATE at its
    highest level, as they are and after the filters of PNG (each value less its left, its upper or the mean of these
    two neighbours, or less the nearest of three by Paeth), whichever is shortest; data that are no pictures as they
    are. An upper bound on the complexity of a datum, and a crude one: on small data the compressor's warming up counts
    for much.

    Args:
        x: whole numbers from 0 to 255, (N, *shape); pictures are (..., H, W).

    Returns:
        (N,), float64.

    Raises:
        ValueError: for any other numbers.

    References:
        Serrà et al. (2020), Input complexity and out-of-distribution detection with likelihood-based generative models.
        Deutsch (1996), DEFLATE Compressed Data Format Specification (RFC 1951).

    Example:
        >>> import torch
        >>> flat, noise = torch.zeros(1, 28, 28), torch.randint(256, (1, 28, 28))
        >>> bool(complexity(flat) < 100), bool(complexity(noise) > 784 * 5)
        (True, True)
    """
    values = x.detach().cpu()
    if not len(values) or bool(((values < 0) | (values > 255) | (values != values.round())).any()):
        raise ValueError(
            "'x' must hold whole numbers from 0 to 255, as levels of grey are: compressed lengths of other numbers are "
            "nothing to compare with a probability."
        )
    levels = values.numpy().astype(np.uint8)
    are_bits = int(levels.max()) <= 1
    lengths = [min(_length(np.packbits(form) if are_bits else form) for form in _forms(datum)) for datum in levels]
    return torch.tensor(lengths, dtype=torch.float64, device=x.device) * 8 * log(2)


def _length(values: np.ndarray) -> int:
    """Bytes, without a header."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return len(compressor.compress(values.tobytes())) + len(compressor.flush())


def _forms(datum: np.ndarray) -> Iterator[np.ndarray]:
    """A datum as it is, and for a picture the residuals of PNG's filters, modulo 256."""
    yield datum
    if datum.ndim < 2 or min(datum.shape[-2:]) < 2:
        return
    padded = np.pad(datum.astype(np.int16), [(0, 0)] * (datum.ndim - 2) + [(1, 0), (1, 0)])
    here, left, up, corner = padded[..., 1:, 1:], padded[..., 1:, :-1], padded[..., :-1, 1:], padded[..., :-1, :-1]
    guess = left + up - corner
    far = np.abs(np.stack([guess - left, guess - up, guess - corner]))
    paeth = np.choose(far.argmin(0), [left, up, corner])
    for predicted in (left, up, (left + up) // 2, paeth):
        yield ((here - predicted) % 256).astype(np.uint8)
