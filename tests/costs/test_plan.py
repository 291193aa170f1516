"""Cost experiments: what their files may say, and what becomes of them."""

from __future__ import annotations

import pytest

from peftlab.costs import CostExperiment
from peftlab.errors import PeftlabError, SettingsError
from peftlab.results.records.costs import CostSettings

GOOD = """
name = "small"
kind = "cost"
question = "What does it cost?"
encoders = ["bert-base"]
cells = [[8, 64], [1, 16]]
modes = ["train", "inference"]
[methods]
full = "full"
lora = { name = "lora", rank = 4 }
prefix = "prefix-30-mlp"
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "cost.toml"
        path.write_text(text)
        return path

    return write


def test_cells_come_smallest_first_with_the_baseline_again(written):
    experiment = CostExperiment.from_toml(written(GOOD))
    plans = list(experiment.plans("cpu", "a processor", 1))
    assert [(p.mode, p.batch, p.length) for p in plans] == [
        ("train", 1, 16),
        ("train", 8, 64),
        ("inference", 1, 16),
        ("inference", 8, 64),
    ]
    assert list(plans[0].methods) == ["full", "lora", "prefix", "full again"]
    assert plans[0].methods["full again"] == plans[0].methods["full"]
    assert plans[0].methods["lora"]["rank"] == 4
    assert "lora merged" in plans[2].methods
    assert "prefix merged" not in plans[2].methods


def test_all_of_a_precision_comes_before_the_next(written):
    text = GOOD.replace("[methods]", 'precisions = ["bf16", "fp32"]\n[methods]')
    plans = list(CostExperiment.from_toml(written(text)).plans("cuda", "a GPU", None))
    assert [p.precision for p in plans] == ["bf16"] * 4 + ["fp32"] * 4


VARIANTS = 'device = "cpu"\nvariants = { compiled = ["full", "lora"] }\n[methods]'


def test_variants_stand_beside_their_methods(written):
    experiment = CostExperiment.from_toml(written(GOOD.replace("[methods]", VARIANTS)))
    for plan in experiment.plans("cpu", "a processor", 1):
        assert list(plan.methods)[-2:] == ["full compiled", "lora compiled"]
        assert plan.methods["lora compiled"] == plan.methods["lora"]


def test_a_cuda_graph_needs_a_gpu_before_anything_is_measured(written):
    text = GOOD.replace("[methods]", VARIANTS.replace("compiled", "graphed"))
    experiment = CostExperiment.from_toml(written(text))
    with pytest.raises(SettingsError, match="CUDA graphs, which 'cpu' does not have: run it on a"):
        list(experiment.plans("cpu", "a processor", 1))
    assert list(experiment.plans("cuda", "a GPU", None))


def test_a_capacity_has_a_budget_and_each_method_once(written):
    text = GOOD.replace('["train", "inference"]', '["train", "capacity"]')
    experiment = CostExperiment.from_toml(written(text))
    train, _, capacity, _ = experiment.plans("cuda", "a GPU", None)
    assert train.budget_gb is None
    assert capacity.budget_gb == 15
    assert list(capacity.methods) == ["full", "lora", "prefix"]


def test_the_id_is_of_the_cell_and_the_machine(written):
    experiment = CostExperiment.from_toml(written(GOOD))
    ids = {
        plan.id
        for where in (("cpu", "one", 1), ("cpu", "one", 2), ("cpu", "two", 1), ("meta", "", None))
        for plan in experiment.plans(*where)
    }
    assert len(ids) == 16
    known = CostSettings(encoder="bert-base", batch=1, length=2, methods={"full": {"name": "full"}})
    assert known.id == CostSettings(**known.model_dump()).id


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"bert-base"', '"bert-bose"', "did you mean 'bert-base'"),
        ('full = "full"', 'all = "full"', "baseline"),
        ('"prefix-30-mlp"', '"prefiks"', "did you mean 'prefix'"),
        ("rank = 4", "rank = 0", "rank"),
        ("[8, 64]", "[8, 0]", "cells"),
        ("[8, 64]", "[8]", "cells"),
        ('"inference"]', '"serve"]', "modes"),
        ('kind = "cost"', 'kind = "time"', "kind"),
        ("[methods]", 'colour = "red"\n[methods]', "colour is no known key"),
        ("[methods]", '[methods]\n"full again" = "full"', "are taken"),
        ("[methods]", '[methods]\n"full graphed" = "full"', "are taken"),
        ("[methods]", VARIANTS.replace('"lora"', '"lore"'), "did you mean 'lora'"),
        ("[methods]", VARIANTS.replace("compiled", "faster"), "variants.faster"),
        ("[methods]", VARIANTS.replace('"cpu"', '"meta"'), "on 'meta' nothing runs"),
        ('name = "small"', 'name = "small', "no valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_file(written, old, new, said):
    assert old in GOOD
    with pytest.raises(PeftlabError, match=said) as caught:
        CostExperiment.from_toml(written(GOOD.replace(old, new)))
    assert "cost.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
