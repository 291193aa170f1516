"""Rational activations: trainable quotients of two polynomials, as Adaptable Adapters use them.

Plain PyTorch, no CUDA extension. How one starts as a known function is fitted here; the methods
that use it are in :mod:`peftlab.methods.adaptable` and :mod:`peftlab.methods.bottleneck`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor, nn

from peftlab.errors import SettingsError, unknown
from peftlab.methods.base import Part

Version = Literal["A", "B"]

#: Degrees of numerator and denominator.
DEGREES = (5, 4)
#: Peak learning rate of the coefficients in the released code of Adaptable Adapters.
RATE = 0.01

#: Where a rational function can start. The first two are rational themselves.
EXACT = {"one": 0, "identity": 1}
FITTED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": partial(nn.functional.leaky_relu, negative_slope=0.01),
    "leaky_relu_0.1": partial(nn.functional.leaky_relu, negative_slope=0.1),
    "gelu": nn.functional.gelu,
    "swish": nn.functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
STARTS = (*EXACT, *FITTED)


class Rational(Part):
    r"""A safe Padé activation of degrees (5, 4), applied to every number by itself.

    .. math::

        R(x) = \frac{\sum_{j=0}^{5} a_j x^j}{Q(x)}, \qquad
        Q_A(x) = 1 + \sum_{k=1}^{4} |b_k x^k|, \qquad
        Q_B(x) = 1 + \Bigl|\sum_{k=1}^{4} b_k x^k\Bigr|

    The denominator is 1 at least, so there is no pole. The 6 + 4 coefficients are shared by all the
    numbers that pass.

    At :math:`b_k = 0`, where :math:`|b_k|` has no derivative, the derivative from the right is
    taken, as the released CUDA code does. PyTorch's own choice, 0, would keep a denominator that
    starts at 1 there for ever.

    It is computed in fp32, or fp64 if x is: numerator and denominator are both divided by
    :math:`\max(1, |x|)^4`, so that no power of a large x is ever taken.

    Source: Moosavi et al. 2022 (arXiv 2205.01549), released code (version A, started at one).
    Taught in the chapter on Adaptable Adapters.

    Args:
        start: The function that it starts as, one of :data:`STARTS`.
        version: Of the denominator.
        rate: Peak learning rate of the coefficients.

    Raises:
        UnknownNameError: The start is not known.
        SettingsError: There is no such version.
    """

    def __init__(self, start: str = "one", version: Version = "A", rate: float = RATE) -> None:
        super().__init__()
        if start not in STARTS:
            raise unknown("start of a rational activation", start, STARTS)
        if version not in ("A", "B"):
            raise SettingsError(f"version is {version!r}: a rational activation is 'A' or 'B'.")
        self.version = version
        self.rates = {"numerator": rate, "denominator": rate}
        numerator, denominator = coefficients(start)
        self.numerator = nn.Parameter(torch.tensor(numerator))
        self.denominator = nn.Parameter(torch.tensor(denominator))

    def forward(self, x: Tensor) -> Tensor:
        """Map x to R(x), of the same shape and type."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        a, b = self.numerator.to(dtype).unbind(), self.denominator.to(dtype).unbind()
        z = x.to(dtype)
        # with x = s u and t = 1/s: P(x) = s^5 P(u, t) and Q(x) = s^4 Q(u, t), whatever s is; so
        # s can be held constant in the derivative
        s = z.detach().abs().clamp(min=1)
        t = 1 / s
        u = z * t
        if self.version == "A":
            below = _homogeneous([torch.ones_like(t), *map(_magnitude, b)], u.abs(), t)
        else:
            below = t**4 + _magnitude(_homogeneous([torch.zeros_like(t), *b], u, t))
        return (s * _homogeneous(a, u, t) / below).to(x.dtype)


def rational(name: str) -> Rational:
    """Make a rational activation from its name.

    Args:
        name: One of :data:`RATIONALS`, such as ``"rational:one"``; ``"rational:one:B"`` is of
            version B.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in RATIONALS:
        raise unknown("rational activation", name, RATIONALS)
    return Rational(*RATIONALS[name])


#: Name of a rational activation → start and version.
RATIONALS: dict[str, tuple[str, Version]] = {f"rational:{start}": (start, "A") for start in STARTS}
RATIONALS |= {f"rational:{start}:B": (start, "B") for start in STARTS}


@cache
def coefficients(start: str) -> tuple[list[float], list[float]]:
    r"""Return the coefficients :math:`a_0 … a_5` and :math:`b_1 … b_4` of a start.

    ``one`` and ``identity`` are exact. The others are fitted by least squares at 601 points from -3
    to 3, the range of the released coefficients: :math:`(P - y Q)^2` is linear in the coefficients;
    it is weighted by :math:`1/Q^2` of the round before (Sanathanan and Koerner's iteration), and
    the best of 20 rounds is kept. Only :math:`b_2, b_4 \ge 0` are used, with which versions A and
    B are the same function.
    """
    if start in EXACT:
        return [float(j == EXACT[start]) for j in range(DEGREES[0] + 1)], [0.0] * DEGREES[1]
    import numpy as np
    from scipy.optimize import lsq_linear

    x = np.linspace(-3, 3, 601)
    y = FITTED[start](torch.from_numpy(x)).numpy()
    powers = np.stack([x**j for j in range(DEGREES[0] + 1)], 1)
    even = np.stack([x**2, x**4], 1)
    table = np.concatenate([powers, -y[:, None] * even], 1)
    free = [-np.inf] * powers.shape[1]
    below = np.ones_like(x)
    least, best = np.inf, np.zeros(table.shape[1])
    for _ in range(20):
        found = lsq_linear(
            table / below[:, None], y / below, ([*free, 0, 0], np.inf), method="bvls"
        ).x
        a, (b2, b4) = found[: len(free)], found[len(free) :]
        below = 1 + even @ (b2, b4)
        error = float(np.square(powers @ a / below - y).sum())
        if error < least:
            least, best = error, found
    *above, b2, b4 = best.tolist()
    return above, [0.0, b2, 0.0, b4]


def _homogeneous(c: list[Tensor] | tuple[Tensor, ...], u: Tensor, t: Tensor) -> Tensor:
    """Return the sum of c_k u^k t^(n-k) over k = 0 … n, by Horner's rule."""
    value, power = c[-1], torch.ones_like(t)
    for coefficient in reversed(c[:-1]):
        power = power * t
        value = value * u + coefficient * power
    return value


def _magnitude(value: Tensor) -> Tensor:
    """Return the absolute value, with derivative 1 at 0."""
    return value * torch.where(value < 0, -1.0, 1.0).to(value.dtype)
