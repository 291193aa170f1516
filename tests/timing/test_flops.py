"""The counter of FLOPs: what it counts, what it refuses, and Hugging Face's convention."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import peftlab as pl
from peftlab.errors import SettingsError
from peftlab.timing.flops import MULTIPLIES, Flops, count, hf_total_flos


def tensors(*needs: bool) -> list[Tensor]:
    return [torch.randn(2, 4, 16, 8, requires_grad=each) for each in needs]


def test_each_operand_with_a_gradient_costs_the_product_once_more():
    x, w = torch.randn(3, 4), torch.randn(4, 5)
    product = 2 * 3 * 4 * 5
    assert count(torch.matmul, x, w) == Flops(product, 0)
    assert count(torch.matmul, x, w.requires_grad_()) == Flops(product, product)
    both = count(torch.matmul, x.requires_grad_(), w)
    assert both == Flops(product, 2 * product)
    assert both.total == 3 * product


def test_it_agrees_with_the_counter_of_torch():
    net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 3, 2))
    x = torch.randn(5, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        net(x).sum().backward()
    assert count(net, x).total == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("dropout", "needs", "products"),
    [
        (0.0, (False, False, False), 0),
        (0.0, (True, True, True), 5),
        (0.0, (False, False, True), 5),
        (0.1, (False, False, False), 0),
        (0.1, (True, True, True), 4),
        (0.1, (True, False, True), 3),
        (0.1, (False, False, True), 1),
    ],
)
def test_attention_on_a_cpu_is_counted(dropout, needs, products):
    """Fused (without dropout), for which torch itself has no formula, and as two products."""
    product = 2 * 2 * 4 * 16 * 16 * 8
    found = count(lambda: F.scaled_dot_product_attention(*tensors(*needs), dropout_p=dropout))
    assert found == Flops(2 * product, products * product)


def test_a_module_whose_input_is_a_parameter():
    table, linear = nn.Parameter(torch.randn(3, 4)), nn.Linear(4, 5)
    assert count(linear, table) == Flops(2 * 3 * 4 * 5, 2 * 2 * 3 * 4 * 5)
    with torch.no_grad():
        assert count(linear, table) == Flops(2 * 3 * 4 * 5, 0)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_no_backward_pass(context):
    linear, x = nn.Linear(4, 5), torch.randn(2, 3, 4)
    with context():
        assert count(linear, x) == Flops(2 * 6 * 4 * 5, 0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: torch.randn(3, 4) @ torch.randn(4), "aten.mv"),
        (
            lambda: torch._int_mm(torch.ones(32, 32).char(), torch.ones(32, 32).char()),
            "aten._int_mm",
        ),
        (
            lambda: torch.randn(3, 3).addmm_(torch.randn(3, 4), torch.randn(4, 3)),
            "aten.addmm_",
        ),
    ],
)
def test_what_has_no_formula_is_refused(call, name):
    with pytest.raises(SettingsError, match=rf"the operator {name}\S* multiplies matrices"):
        count(call)


def test_names_of_operators():
    multiply = {
        *("mm", "_int_mm", "_grouped_mm", "addbmm_", "sspaddmm", "matmul", "mv", "addmv"),
        *("linear", "mkldnn_linear", "_linear_pointwise", "linear_backward", "_trilinear"),
        *("_scaled_dot_product_fused_attention_overrideable", "_native_multi_head_attention"),
        *("_flash_attn_forward", "mkldnn_rnn_layer", "mkldnn_convolution", "_conv_depthwise2d"),
    }
    others = {
        *("digamma", "_standard_gamma", "lgamma", "mvlgamma", "cummax", "upsample_linear1d"),
        *("_fused_sdp_choice", "_convert_indices_from_csr_to_coo", "_softmax", "embedding"),
    }
    assert {name for name in multiply | others if MULTIPLIES.search(name)} == multiply


def test_nothing_seen_is_no_zero():
    with pytest.raises(SettingsError, match="Not one matrix product was seen"):
        count(lambda: torch.ones(3).sum())


def test_a_call_must_return_a_tensor():
    with pytest.raises(SettingsError, match="returned a tuple: return the tensor"):
        count(lambda: (torch.randn(2, 2) @ torch.randn(2, 2), None))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_convention_of_hugging_face(make_encoder, toy_task, method):
    """Frozen parameters count as trained ones do."""
    from transformers import Trainer

    backbone = pl.model(make_encoder(), toy_task, method).backbone
    ids = torch.ones(3, 7, dtype=torch.long)
    trainer = SimpleNamespace(model=backbone)
    logged = Trainer.floating_point_ops(trainer, {"input_ids": ids})
    assert hf_total_flos(backbone, 21) == logged
    tables = sum(m.weight.numel() for m in backbone.modules() if isinstance(m, nn.Embedding))
    assert logged == 6 * 21 * (sum(p.numel() for p in backbone.parameters()) - tables)
