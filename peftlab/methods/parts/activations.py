"""Nonlinearities by name, as settings of methods write them.

Those with weights of their own are elsewhere: rational functions are in
:mod:`peftlab.methods.parts.rational`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from peftlab.errors import unknown

#: The names are those of `transformers`, whose functions `adapters` uses, and its ``leakyrelu``.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "linear": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """Make a nonlinearity, which acts on each number.

    Args:
        name: One of :data:`ACTIVATIONS`, or the name of a trainable one, such as
            ``"rational:one"``; see :func:`peftlab.methods.parts.rational.rational`.

    Returns:
        A new module; its parameters, if it has any, train.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name.startswith("rational"):
        from peftlab.methods.parts.rational import rational

        return rational(name)
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()
