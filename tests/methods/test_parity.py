"""The same weights in `adapters` and `peft` give the same states and gradients (≤ 1e-5, fp32)."""

from __future__ import annotations

import pytest

import peftlab as pl
from tests.methods.parity import (
    check_adapters_reads,
    check_peft_reads,
    check_we_read_adapters,
    check_we_read_peft,
    trained,
)

QKV = ("query", "key", "value")
LORAS = [
    pl.LoRA(rank=4, alpha=6),
    pl.LoRA(rank=3, alpha=16, targets=(*QKV, "intermediate", "output"), leave_out=(1,)),
    pl.LoRA(targets=("intermediate",)),
]
FOR_ADAPTERS = [
    *(pl.Adapter(activation=a) for a in ("relu", "gelu", "gelu_new", "silu", "swish", "tanh")),
    pl.Adapter(bottleneck_size=5, leave_out=(0,)),
    pl.Adapter(bottleneck_size=8, init="zero"),
    *LORAS,
]
FOR_PEFT = [
    *LORAS,
    pl.LoRA(targets=("attention_output",)),
    pl.LoRA(targets=("output",), leave_out=(0, 2)),
    pl.LoRA(targets=(*QKV, "attention_output", "intermediate", "output")),
]


@pytest.mark.parametrize("method", FOR_ADAPTERS, ids=str)
def test_adapters_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    check_adapters_reads(
        model, make_encoder(model_type).backbone, inputs, tmp_path, record_property
    )


@pytest.mark.parametrize("method", FOR_PEFT, ids=str)
def test_peft_reads_what_we_write(
    make_encoder, model_type, toy_task, inputs, tmp_path, method, record_property
):
    model = trained(make_encoder, model_type, toy_task, method)
    theirs = make_encoder(model_type).backbone

    def rename(name: str) -> str:
        return "base_model.model." + name.replace(".original", ".base_layer").replace(
            ".weight", ".default.weight"
        )

    check_peft_reads(model, theirs, inputs, tmp_path, record_property, rename)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("SeqBnConfig", {}),
        ("SeqBnConfig", {"reduction_factor": 5, "non_linearity": "swish", "leave_out": [1]}),
        ("LoRAConfig", {"r": 3, "alpha": 7}),
        (
            "LoRAConfig",
            {"attn_matrices": ["v", "k"], "intermediate_lora": True, "output_lora": True},
        ),
        ("LoRAConfig", {"selfattn_lora": False, "output_lora": True, "leave_out": [0]}),
    ],
    ids=str,
)
def test_we_read_what_adapters_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, config, settings, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    check_we_read_adapters(theirs, encoder, toy_task, inputs, tmp_path, config, settings, safe)


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["query", "value"]},
        {"target_modules": ["query", "output.dense"], "layers_to_transform": [0, 2]},
        {"target_modules": ["value"], "layers_to_transform": 1, "lora_alpha": 5},
        {"target_modules": "all-linear", "r": 2},
        {"target_modules": r".*layer\.[02]\.intermediate\.dense"},
    ],
    ids=str,
)
def test_we_read_what_peft_writes(
    make_encoder, model_type, toy_task, inputs, tmp_path, settings, safe
):
    theirs, encoder = make_encoder(model_type).backbone, make_encoder(model_type)
    check_we_read_peft(theirs, encoder, toy_task, inputs, tmp_path, "LoraConfig", settings, safe)
