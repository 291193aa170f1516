"""Choosing a method: each rule of the ranking, on records whose numbers are known."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from peftlab.results.choice.needs import AXES, Needs
from peftlab.results.choice.rule import Choice, choose
from peftlab.results.comparison.statistics import place
from peftlab.results.records.costs import CostRecord, CostSettings
from peftlab.results.records.run import CurvePoint, Record, Sizes
from tests.results.made import METHODS, candidate, record
from tests.results.transferred import joint, transferred

BACKBONE, HEAD = 5000, 10  # of made records
STORED = {"full": BACKBONE, "slow": 300, "lora": 100, "tie": 40}


def runs(
    label: str, accuracy: float = 0.9, task: str = "one", train: int = 100, **more: Any
) -> list[Record]:
    experiment, steps = more.pop("experiment", "made"), more.pop("steps", 3)
    more.setdefault("stored", STORED.get(label, 50))
    more.setdefault("inference", 0 if label == "full" else more["stored"])
    return [
        record(label, task, seed, accuracy=accuracy, rows=2000, **more).replaced(
            experiment=experiment,
            sizes=Sizes(train=train, dev=50, test=2000),
            curve=[CurvePoint(step=steps, loss=0.5, learning_rate=0.0)],
        )
        for seed in (0, 1, 2)
    ]


def cost(
    batch: int = 8, length: int = 32, mode: str = "train", encoder: str = "near", **more: Any
) -> CostRecord:
    """A cell in which each method is found by its name; ``slow merged`` takes as long as full."""
    found = {label: candidate(label, batch) for label in METHODS}
    found["slow merged"] = candidate("tie", batch)
    if backbone := more.pop("backbone", BACKBONE):
        for label, each in found.items():
            counts = each.parameters.model_copy(update={"backbone": backbone})
            found[label] = each.model_copy(update={"parameters": counts})
    methods = {label: {"name": label} for label in found}
    methods["full again"], methods["slow merged"] = methods["full"], methods["slow"]
    settings = CostSettings(
        encoder=encoder, mode=mode, batch=batch, length=length, methods=methods, **more
    )
    return CostRecord(id=settings.id, experiment="cells", settings=settings, candidates=found)


EQUAL = [run for label in STORED for run in runs(label)]


def ranks(choice: Choice) -> dict[str, int | None]:
    return {option.method: option.rank for option in choice.options}


def option(choice: Choice, method: str) -> Any:
    (found,) = [each for each in choice.options if each.method == method]
    return found


def test_what_hurts_orders_and_ties_share_a_rank() -> None:
    choice = choose(EQUAL, [cost()], Needs(rows=100))
    assert ranks(choice) == {"lora": 1, "full": 2, "tie": 2, "slow": 4}
    assert [option.method for option in choice.first] == ["lora"]
    assert [each.method for each in choice.options][-1] == "slow"


def test_memory_is_that_of_the_method_over_full() -> None:
    made = cost()
    lora = made.candidates["lora"]
    less = lora.model_copy(update={"memory": lora.memory | {"total": 2 * 10**6}})
    made = made.model_copy(update={"candidates": made.candidates | {"lora": less}})
    choice = choose(EQUAL, [made], Needs(rows=100, hurts=["memory"]))
    assert option(choice, "lora").ratios["memory"].ratio == 0.4
    assert [each.method for each in choice.first] == ["lora"]


def test_the_next_thing_that_hurts_tells_ties_apart() -> None:
    choice = choose(EQUAL, [cost()], Needs(rows=100, tasks=10, hurts=["time", "storage"]))
    assert {k: v for k, v in ranks(choice).items() if v} == {
        "lora": 1,
        "tie": 2,
        "full": 3,
        "slow": 4,
    }


def test_without_anything_that_hurts_all_that_are_as_good_share_the_first_rank() -> None:
    choice = choose([*EQUAL, *runs("poor", 0.6)], [], Needs(rows=100, hurts=[]))
    assert ranks(choice) == dict.fromkeys(STORED, 1) | {"poor": None}


def test_out_is_who_is_shown_to_be_worse_by_more_than_the_margin() -> None:
    records = [*runs("full", 0.9), *runs("lora", 0.85)]
    strict = choose(records, [], Needs(rows=100, hurts=[]), margin=0.02)
    assert option(strict, "lora").why == "worse than the best on one"
    assert option(strict, "lora").scores["one"].high < -0.02
    lenient = choose(records, [], Needs(rows=100, hurts=[]), margin=0.06)
    assert ranks(lenient)["lora"] == 1
    assert {each.method: each.worse for each in lenient.options} == {"full": [], "lora": ["one"]}
    told = lenient.table().set_index("method")["one, to the best"]
    assert told["lora"].endswith(", worse")
    assert told["full"] == "the best"


def test_a_difference_that_is_not_shown_or_rests_on_one_seed_keeps_nobody_out() -> None:
    varied = [runs("lora", score)[seed] for seed, score in enumerate((0.95, 0.8, 0.85))]
    unclear = choose([*runs("full", 0.9), *varied], [], Needs(rows=100, hurts=[]), margin=0.0)
    assert option(unclear, "lora").scores["one"].estimate == pytest.approx(-0.033, abs=1e-3)
    assert not option(unclear, "lora").worse
    assert ranks(unclear)["lora"] == 1
    once = [run for run in (*runs("full", 0.9), *runs("lora", 0.6)) if run.settings.seed == 0]
    found = choose(once, [], Needs(rows=100, hurts=[]))
    assert ranks(found) == {"full": 1, "lora": 1}
    assert option(found, "lora").scores["one"].high < 0


def test_a_wide_interval_is_no_merit() -> None:
    """Who scores below one that is out, on the task where that has lost, is out with it."""
    wide = [runs("tie", score)[seed] for seed, score in enumerate((0.93, 0.7, 0.84))]
    records = [*runs("full", 0.9), *runs("lora", 0.85), *wide]
    choice = choose(records, [], Needs(rows=100, hurts=[]))
    assert not option(choice, "tie").worse
    assert option(choice, "tie").why == "worse than lora, which is out"
    assert {each.method for each in choice.options if each.out} == {"lora", "tie"}
    # lora has lost a task that the other was not scored on, or is below it on one
    lost = [*runs("full", 0.9, "two"), *runs("lora", 0.7, "two")]
    narrow = [*runs("full", 0.9), *runs("lora", 0.89), *wide]
    assert ranks(choose([*narrow, *lost], [], Needs(rows=100, hurts=[])))["tie"] == 1
    both = [*records, *lost, *runs("tie", 0.75, "two")]
    assert "two" in option(choose(both, [], Needs(rows=100, hurts=[])), "tie").why


def test_a_difference_inside_the_noise_of_training_is_none() -> None:
    records = [*runs("full", 0.9), *runs("lora", 0.85)]
    here = place(records[0])
    for floor, rank in ((0.06, 1), (0.04, None)):
        found = choose(records, [], Needs(rows=100, hurts=[]), floors={here: floor})
        assert ranks(found)["lora"] == rank
    elsewhere = choose(records, [], Needs(rows=100, hurts=[]), floors={("other", *here[1:]): 1.0})
    assert ranks(elsewhere)["lora"] is None


def test_the_noise_of_a_task_holds_where_a_model_of_several_is_best() -> None:
    scores = {"test": {"accuracy": 0.9}, "one": {"accuracy": 0.9}, "two": {"accuracy": 0.9}}
    together = [
        run.replaced(
            settings=run.settings.model_copy(update={"task_options": {"of": ["one", "two"]}}),
            metrics=run.metrics | scores,
            example_scores=dict.fromkeys(("one", "two"), run.example_scores["test"]),
        )
        for run in runs("full", 0.9, "both")
    ]
    alone = [run for task in ("one", "two") for run in runs("lora", 0.85, task)]
    floors = {("tiny", task, 2000): 0.06 for task in ("one", "two")}
    for there, rank in ((floors, 1), ({}, None)):
        found = choose([*together, *alone], [], Needs(rows=100, tasks=2, hurts=[]), floors=there)
        assert ranks(found)["lora"] == rank


def test_worse_on_one_task_is_enough_and_the_best_may_differ_from_task_to_task() -> None:
    records = [
        *(run for label in ("full", "lora") for run in runs(label)),
        *runs("full", 0.6, "two"),
        *runs("lora", 0.9, "two"),
        *runs("tie"),
    ]
    choice = choose(records, [cost()], Needs(rows=100))
    assert ranks(choice) == {"lora": 1, "tie": 2, "full": None}
    assert option(choice, "full").why == "worse than the best on two"
    assert set(option(choice, "tie").scores) == {"one"}
    assert option(choice, "lora").scores["two"].estimate == 0


@pytest.mark.parametrize(
    ("rows", "there"), [(100, 100), (900, 100), (1100, 10_000), (10**6, 10_000)]
)
def test_the_nearest_number_of_rows_counts_as_a_ratio(rows: int, there: int) -> None:
    large = [
        run
        for label in ("full", "lora")
        for run in runs(label, train=10_000, limits={"train": 10_000})
    ]
    choice = choose([*EQUAL, *large], [], Needs(rows=rows, hurts=[]))
    assert f"{there:,} train rows" in choice.scored


def test_of_equally_near_experiments_the_one_with_most_methods_counts_alone() -> None:
    other = [run for label in ("full", "lora") for run in runs(label, 0.5, experiment="a")]
    for records in ([*EQUAL, *other], [*other, *EQUAL]):
        choice = choose(records, [], Needs(rows=100, hurts=[]))
        assert choice.scored.startswith("made: one; tiny")
        assert set(ranks(choice)) == set(STORED)


def test_storage_counts_the_encoder_once_if_it_is_shared() -> None:
    choice = choose(EQUAL, [], Needs(rows=100, tasks=7, hurts=["storage"]))
    numbers = {each.method: round(each.megabytes * 1e6 / 4) for each in choice.options}
    assert numbers == {
        "full": 7 * (BACKBONE + HEAD),
        "slow": BACKBONE + 7 * (300 + HEAD),
        "lora": BACKBONE + 7 * (100 + HEAD),
        "tie": BACKBONE + 7 * (40 + HEAD),
        "full, multi-task": BACKBONE + 7 * HEAD,
    }
    assert option(choice, "lora").ratios["storage"].ratio == numbers["lora"] / numbers["full"]
    assert ranks(choice) == {"tie": 1, "lora": 2, "slow": 3, "full": 4, "full, multi-task": None}
    assert option(choice, "full, multi-task").why == "no record of score"


def test_less_than_a_fiftieth_is_the_same() -> None:
    near = [*runs("full"), *runs("first", stored=100), *runs("second", stored=60)]
    choice = choose(near, [], Needs(rows=100, hurts=["storage"]))
    assert set(ranks(choice).values()) == {1}  # 5,110, 5,070 and 5,010 numbers
    far = [*runs("full"), *runs("first", stored=100), *runs("third", stored=250)]
    assert ranks(choose(far, [], Needs(rows=100, hurts=["storage"])))["third"] == 3


def test_one_task_is_served_merged_and_what_adds_nothing_is_the_bare_encoder() -> None:
    cells = [cost(1, mode="inference")]
    records = [*EQUAL, *runs("bias", inference=0)]
    one = choose(records, cells, Needs(rows=100, hurts=["latency"]))
    assert option(one, "slow").ratios["latency"].low < 1.02
    assert option(one, "bias").ratios["latency"] == (1, 1, 1)
    many = choose(records, cells, Needs(rows=100, tasks=2, hurts=["latency"]))
    assert option(many, "slow").ratios["latency"].low > 1.2
    assert option(many, "slow").rank == 5


def test_the_nearest_cell_is_taken_and_named() -> None:
    cells = [
        cost(64, 128),
        cost(8, 32),
        cost(8, 32, encoder="far", backbone=10 * BACKBONE),
        cost(8, 32, "inference"),
        cost(8, 32, device="cuda", processor="a GPU"),
    ]

    def said(**more: Any) -> str:
        return choose(EQUAL, cells, Needs(rows=100, **more)).measured["time"]

    assert said() == "cells: near, 8 × 32 tokens, cpu"
    assert said(batch=100, length=100) == "cells: near, 64 × 128 tokens, cpu"
    assert said(device="cuda") == "cells: near, 8 × 32 tokens, cuda"
    only_far = choose(EQUAL, cells[2:3], Needs(rows=100))
    assert only_far.measured["time"] == "cells: far, 8 × 32 tokens, cpu"


def test_of_equally_near_cells_the_one_that_timed_most_methods_counts() -> None:
    whole = cost()
    few = {k: v for k, v in whole.candidates.items() if k in ("full", "lora")}
    small = whole.model_copy(update={"experiment": "few", "candidates": few})
    for name in ("0", "z"):  # whichever comes first by its name
        cells = [small.model_copy(update={"id": name}), whole]
        assert choose(EQUAL, cells, Needs(rows=100)).measured["time"].startswith("cells:")


def test_what_is_not_measured_has_no_rank() -> None:
    records = [*EQUAL, *runs("unknown")]
    choice = choose(records, [cost()], Needs(rows=100))
    assert option(choice, "unknown").why == "no record of time"
    assert choice.options[-1].method == "unknown"
    nothing = choose(records, [cost()], Needs(rows=100, device="cuda"))
    assert nothing.measured["time"] == "no record"
    assert set(ranks(nothing).values()) == {None}
    assert (nothing.table().set_index("method")["time"] == "no record").all()


def test_time_is_that_of_all_steps() -> None:
    records = [*runs("full"), *runs("lora", steps=6)]
    choice = choose(records, [cost()], Needs(rows=100))
    assert option(choice, "lora").ratios["time"].ratio == pytest.approx(2 * 0.7, rel=0.03)
    assert [option.method for option in choice.first] == ["full"]


def test_time_is_as_uncertain_as_the_steps_that_seeds_take() -> None:
    stopped = [
        run.replaced(curve=[CurvePoint(step=steps, loss=0.5, learning_rate=0.0)])
        for run, steps in zip(runs("lora"), (2, 4, 9), strict=True)
    ]
    found = option(choose([*runs("full"), *stopped], [cost()], Needs(rows=100)), "lora")
    time = found.ratios["time"]
    assert time.ratio == pytest.approx(0.7 * (2 * 4 * 9) ** (1 / 3) / 3, rel=0.03)
    assert time.low < 0.7 * 2 / 3 < 0.7 * 9 / 3 < time.high


def test_of_one_seed_time_is_known_only_where_no_rule_ended_the_run() -> None:
    def ruled(run: Record) -> Record:
        training = {**run.settings.training, "patience": 3}
        return run.replaced(settings=run.settings.model_copy(update={"training": training}))

    one = [*runs("full"), *runs("lora")[:1]]
    assert "time" in option(choose(one, [cost()], Needs(rows=100)), "lora").ratios
    ended = [ruled(run) for run in one]
    assert "time" not in option(choose(ended, [cost()], Needs(rows=100)), "lora").ratios


def test_time_is_that_of_all_tasks() -> None:
    records = [
        *(run for task in ("one", "two") for run in runs("full", task=task)),
        *runs("lora", steps=3),
        *runs("lora", task="two", steps=9),
        *runs("slow"),
    ]
    choice = choose(records, [cost()], Needs(rows=100))
    assert option(choice, "lora").ratios["time"].ratio == pytest.approx(2 * 0.7, rel=0.03)
    assert option(choice, "slow").ratios["time"].ratio == pytest.approx(1.3, rel=0.03)
    other = choose([*runs("full"), *runs("lora", task="two")], [cost()], Needs(rows=100))
    assert "time" not in option(other, "lora").ratios  # full was not trained there


def test_labels_of_one_method_are_its_rates() -> None:
    slow = [
        run.replaced(
            settings=run.settings.model_copy(
                update={
                    "method_label": "lora-shared",
                    "training": run.settings.training | {"learning_rate": 1e-5},
                }
            ),
            metrics=run.metrics | {"dev": {"accuracy": 0.3}},
        )
        for run in runs("lora", 0.6)
    ]
    choice = choose([*runs("full"), *slow, *runs("lora")], [], Needs(rows=100, hurts=[]))
    assert ranks(choice) == {"full": 1, "lora": 1}


def test_controls_are_no_methods() -> None:
    controls = [*runs("majority", rate=None), *runs("lora", random_weights=True)]
    choice = choose([*runs("full"), *controls], [], Needs(rows=100, hurts=[]))
    assert ranks(choice) == {"full": 1}


def test_what_was_learned_is_told_beside() -> None:
    """Of the other number of rows, another control."""
    controls = [*runs("majority", 0.5, rate=None)[:1], *runs("majority", 0.8, train=300, rate=None)]
    records = [*runs("full"), *runs("lora", 0.7), *controls]
    choice = choose(records, [], Needs(rows=100, hurts=[]))
    (gain,) = choice.learned.values()
    assert (gain.estimate, [*choice.learned]) == (pytest.approx(0.4), ["one"])
    assert choice.rows == 100
    assert choose(EQUAL, [], Needs(rows=100, hurts=[])).learned == {}


def test_what_was_learned_for_other_languages_is_told_too() -> None:
    rates = {"full": 1e-3, "lora": 1e-3, "majority": None}
    records = [transferred(x, seed, rate=r) for x, r in rates.items() for seed in (0, 1, 2)]
    (gain,) = choose(records, [], Needs(rows=700, languages=2, hurts=[])).learned.values()
    assert gain.estimate == pytest.approx((0.7 + 0.4) / 2 - 0.25)


def test_one_model_for_several_tasks_is_scored_on_each() -> None:
    def together(seed: int) -> Record:
        one, two = (record("full", task, seed, accuracy=x, rows=2000, stored=BACKBONE, inference=0)
                    for task, x in (("one", 0.9), ("two", 0.6)))  # fmt: skip
        options: dict[str, Any] = {"of": [{"name": "one"}, {"name": "two"}]}
        settings = one.settings.model_copy(update={"task": "both", "task_options": options})
        return one.replaced(
            settings=settings,
            experiment="made",
            metrics={"dev": {"mean": 0.7}, "test": {"mean": 0.7}}
            | {"one": one.metrics["test"], "two": two.metrics["test"]},
            main_metric="mean",
            example_scores={
                name: r.example_scores["test"] for name, r in (("one", one), ("two", two))
            },
            sizes=Sizes(train=200, dev=50, test=4000),
            curve=[CurvePoint(step=9, loss=0.5, learning_rate=0.0)],
        )

    single = [
        run for task in ("one", "two") for x in ("full", "lora") for run in runs(x, task=task)
    ]
    records = [*single, *(together(seed) for seed in (0, 1, 2))]
    needs = Needs(rows=100, tasks=2, hurts=["storage"])
    found = option(choose(records, [cost()], needs), "full, multi-task")
    assert found.ratios["time"].ratio == 9 / (3 + 3)  # once for both
    untried = option(choose(single, [cost()], needs), "full, multi-task")
    assert "time" not in untried.ratios
    assert found.scores["one"].estimate == pytest.approx(0)
    assert found.scores["two"].estimate == pytest.approx(-0.3)
    assert found.why == "worse than the best on two"
    alone = choose(records, [], Needs(rows=100, hurts=[]))
    assert "full, multi-task" not in ranks(alone)


def test_several_languages_ask_for_scores_in_others() -> None:
    full = [transferred("full", seed, stored=BACKBONE) for seed in (0, 1, 2)]
    lora = [transferred("lora", seed, (0.9, 0.3, 0.2)) for seed in (0, 1, 2)]
    records = [*EQUAL, *full, *lora, *(joint(seed) for seed in (0, 1, 2))]
    choice = choose(records, [], Needs(rows=100, languages=2, hurts=[]))
    assert "mean over 2 languages" in choice.scored
    assert ranks(choice) == {"full": 1, "lora": None}
    assert option(choice, "lora").scores["sib200"].estimate == pytest.approx(-0.3)
    several = choose(records, [], Needs(rows=100, languages=2, tasks=2, hurts=["storage"]))
    together = option(several, "full, multi-task")
    assert together.rank == 1
    assert together.megabytes == pytest.approx((BACKBONE + 100 + 2 * HEAD) * 4 / 1e6)


def test_the_table_says_at_which_rates_methods_were_scored() -> None:
    two = [*EQUAL, *runs("full", task="two", rate=1e-4), *runs("lora", task="two")]
    choice = choose(two, [], Needs(rows=100, hurts=[]))
    rates = choice.table().set_index("method")["learning rate"]
    (usual,) = {run.settings.learning_rate for run in EQUAL}
    assert rates["lora"] == f"{usual:g}"
    assert set(rates["full"].split(", ")) == {f"{usual:g}", "0.0001"}


def test_without_records_nothing_is_said() -> None:
    for needs in (Needs(), Needs(languages=3)):
        choice = choose([], [cost()], needs)
        assert (choice.scored, choice.options, choice.first) == ("no record", (), [])
        columns = ["rank", "method", *AXES, "MB", "learning rate", "why no rank"]
        assert list(choice.table().columns) == columns
    alone = choose(runs("lora"), [cost()], Needs(rows=100))
    assert alone.measured["time"] == "no record of full fine-tuning"
    assert ranks(alone) == {"lora": None}


def test_the_table_says_all_of_it() -> None:
    table = choose([*EQUAL, *runs("poor", 0.6)], [cost()], Needs(rows=100)).table()
    assert list(table["rank"]) == ["1", "2", "2", "4", ""]
    table = table.set_index("method")
    assert table.loc["full", "one, to the best"] == "the best"
    assert table.loc["poor", "one, to the best"].startswith("-0.3")
    assert table.loc["full", "time"] == "1"
    assert table.loc["lora", "time"].startswith("0.7")
    assert table.loc["lora", "latency"] == "no record"


def test_needs_are_checked() -> None:
    with pytest.raises(ValidationError, match="hurts"):
        Needs(hurts=["money"])
    with pytest.raises(ValidationError, match="rows"):
        Needs(rows=0)
