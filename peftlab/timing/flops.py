"""FLOPs of a call, counted while it runs: forward and backward, and never a silent zero.

Counted are matrix products, as 2 × multiply-accumulates, of everything that is really computed,
padding included. Sums, normalisations and functions of single numbers are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from peftlab.errors import SettingsError

aten = torch.ops.aten

#: Operator → its formula. Torch has none for its fused attention on a CPU, which would count as 0;
#: the formulas are those of the same kernel on a GPU: 2 products forward, 5 backward.
FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}

#: Names of operators that multiply matrices, such as ``mkldnn_linear`` and ``_int_mm``.
MULTIPLIES = re.compile(
    r"(^|_)([a-z]*mm|matmul|(add)?mv|(bi|tri|q)?linear|attention|attn|rnn|conv(?!ert)[a-z0-9]*)(_|$)"
)


class Flops(NamedTuple):
    """Counted FLOPs of one call."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


class _Counter(TorchDispatchMode):
    """Sees every operator that runs, and adds up what the formulas say."""

    total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        formula = FORMULAS.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode torch does not take composed operators apart by itself
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            if MULTIPLIES.search(func._overloadpacket.__name__):
                raise SettingsError(
                    f"FLOPs cannot be counted here: the operator {func} multiplies matrices and "
                    "has no formula; add one to FORMULAS in peftlab/timing/flops.py."
                )
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def count(call: Callable[..., Tensor], *args: Any) -> Flops:
    """Count a call, and the backward pass from what it returns.

    Args:
        call: Returns a tensor: the loss of a training step. If that needs no gradient, as under
            ``torch.no_grad()``, there is no backward pass. Gradients are left on the parameters.
        *args: What it is called with.

    Returns:
        The FLOPs; 2 × multiply-accumulates of matrix products.

    Raises:
        SettingsError: It returns no tensor, or something multiplies matrices uncounted: an operator
            without a formula, or a captured graph, in which no operator is seen.
    """
    with _Counter() as counter:
        result = call(*args)
        if not isinstance(result, Tensor):
            raise SettingsError(
                f"A call whose FLOPs are counted returned a {type(result).__name__}: return the "
                "tensor from which the backward pass starts."
            )
        forward = counter.total
        if result.requires_grad:
            result.sum().backward()  # type: ignore[no-untyped-call]
    if forward == 0:
        raise SettingsError(
            "Not one matrix product was seen in the call: count it as plain eager code, not as a "
            "replayed or compiled graph."
        )
    return Flops(forward, counter.total - forward)


def hf_total_flos(model: nn.Module, tokens: int) -> int:
    """Return the FLOPs of a training step as Hugging Face's ``Trainer`` logs them, ``total_flos``.

    6 × parameters × tokens. All parameters count, frozen or not, except the weights of
    ``nn.Embedding``; padding counts too. So a method that freezes the encoder costs *more* by it
    than full fine-tuning, by its own parameters.

    Source: ``floating_point_ops`` of transformers, after Kaplan et al. 2020 (arXiv 2001.08361),
    section 2.1.

    Args:
        model: As it is trained, with its head.
        tokens: Of the batch, padding included.
    """
    tables = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, nn.Embedding)}
    return 6 * tokens * sum(p.numel() for name, p in model.named_parameters() if name not in tables)
