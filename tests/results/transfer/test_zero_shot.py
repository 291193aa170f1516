"""Scores in other languages: read off records, averaged, compared, and what they have cost."""

from __future__ import annotations

import numpy as np
import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison import statistics
from peftlab.results.records.run import TrainingFlops
from peftlab.results.transfer import languages
from peftlab.results.transfer.costs import budgets, language_adapters, trade_off
from peftlab.results.transfer.retention import averages, difference, summary
from peftlab.results.transfer.zero_shot import by_language, table, transfers
from peftlab.tasks.catalog import ROWS as CATALOG
from peftlab.tasks.catalog.dataset import ANY
from tests.results.transferred import experiment, joint, language_run, transferred


def without_examples(records):
    """The same scores, but of a metric that is no mean over rows."""
    return [record.replaced(example_scores={}) for record in records]


@pytest.mark.parametrize(
    ("name", "parts", "script"),
    [
        ("sib200/deu_Latn", ("sib200", "deu_Latn"), "Latn"),
        ("pocket/nli/ru", ("pocket/nli", "ru"), "Cyrl"),
        ("glue/mnli", ("glue/mnli", "en"), ""),
        ("pocket/nli", ("pocket/nli", "en"), ""),
        ("squad", ("squad", "en"), ""),
        ("xsid/de-ba", ("xsid", "de-ba"), "Latn"),
        ("xsid/sr", ("xsid", "sr"), "Latn"),
        ("wikiann/sr", ("wikiann", "sr"), "Cyrl"),
    ],
)
def test_names_say_task_language_and_script(name, parts, script):
    assert languages.split(name) == parts
    assert languages.script(name) == script


def test_every_language_of_the_catalogue_has_a_script():
    known = {
        (row.name, config)
        for row in CATALOG
        if row.language == "{config}" and row.configs != ANY and row.kind != "language-model"
        for config in row.configs
    }
    assert len(known) > 250
    assert {each for each in known if not languages.script("/".join(each))} == set()


def test_one_row_a_run_and_language_at_the_chosen_rate():
    rows = table([*experiment(), language_run("sw")])
    assert set(rows["method"]) == {"majority", "full", "lora", "madx"}
    assert len(rows) == 3 * (1 + 3 * 3)
    one = rows[(rows["method"] == "lora") & (rows["seed"] == 1)].set_index("target")
    assert one["score"].to_dict() == {"eng_Latn": 0.8, "deu_Latn": 0.6, "rus_Cyrl": 0.3}
    assert one["script"].to_dict() == {"eng_Latn": "Latn", "deu_Latn": "Latn", "rus_Cyrl": "Cyrl"}
    assert set(one["source"]) == {"eng_Latn"}
    assert set(one["task"]) == {"sib200"}


def test_a_set_with_another_source_is_named_after_what_is_tested():
    others = ("xnli/en", "xnli/de")
    (found,) = transfers([transferred("full", task="glue/mnli", others=others)])
    assert (found.task, found.source, set(found.targets)) == ("xnli", "en", {"de"})
    assert found.home == "xnli/en"  # the same rows as in German, not the test split of MNLI


def test_tasks_learnt_together_are_taken_apart():
    (found,) = transfers([joint(0), joint(1)])
    assert (found.task, found.method, found.metric) == ("sib200", "full, multi-task", "accuracy")
    assert found.home == "sib200/eng_Latn"
    assert found.scores("sib200/rus_Cyrl") == [0.4, 0.4]
    assert found.examples(found.home).shape == (2, 200)
    limited = [{"name": "sib200/eng_Latn", "train": 500}, {"name": "xsid/en"}]
    options = joint().settings.model_copy(update={"task_options": {"of": limited}})
    assert transfers([joint().replaced(settings=options)])[0].home == found.home
    lost = joint().settings.model_copy(update={"task_options": {"of": ["xsid/en", "squad"]}})
    with pytest.raises(RecordError, match="none of them is its source"):
        transfers([joint().replaced(settings=lost)])


def test_a_test_in_the_language_of_the_training_is_no_transfer():
    run = transferred("full", task="glue/mnli", others=("glue/rte", "glue/mnli"))
    assert transfers([run]) == []


def test_languages_with_intervals_and_the_majority_class():
    rows = by_language(experiment())
    assert list(rows["target"].unique()) == ["eng_Latn", "deu_Latn", "rus_Cyrl"]
    line = rows.set_index(["method", "target"]).loc[("lora", "deu_Latn")]
    assert (line["mean"], line["majority"]) == pytest.approx((0.6, 0.25))
    assert line["low"] < 0.6 < line["high"]
    assert (line["seeds"], line["rows"], line["over"]) == (3, 200, "seeds and examples")


def test_averages_and_retention():
    found = {each.method: each for each in transfers(experiment())}
    full = averages(found["full"])
    assert (full.source.estimate, full.target.estimate) == pytest.approx((0.8, 0.55))
    assert full.retention.estimate == pytest.approx(0.55 / 0.8)
    assert full.retention.low < 0.55 / 0.8 < full.retention.high
    change = difference(found["lora"], found["full"])
    assert (change.source.estimate, change.source.verdict) == (0, "tie")
    assert change.target.estimate == pytest.approx(-0.1)
    assert change.target.verdict == "worse"


def test_translations_are_drawn_together():
    """What is hard in all languages makes the average no surer; unrelated rows do."""
    random = np.random.default_rng(0)

    def run(scores):
        made = transferred("full", rows=300)
        metrics = made.metrics | {n: {"accuracy": float(s.mean())} for n, s in scores.items()}
        examples = {n: s.tolist() for n, s in scores.items()}
        (found,) = transfers([made.replaced(metrics=metrics, example_scores=examples)])
        each = averages(found)
        return each.target.high - each.target.low, each.retention.high - each.retention.low

    names = ("test", "sib200/deu_Latn", "sib200/rus_Cyrl")
    hard = random.uniform(0, 1, 300) < 0.5
    alike = run(dict.fromkeys(names, hard.astype(float)))
    apart = run({name: random.permutation(hard).astype(float) for name in names})
    assert apart[0] == pytest.approx(alike[0] / 2**0.5, rel=0.1)
    assert alike[1] == 0  # the ratio of equal things is 1, whichever rows there are
    assert apart[1] > 0.1


def test_sets_of_different_sizes_are_drawn_apart():
    made = [transferred("full", seed) for seed in (0, 1)]
    shorter = []
    for run in made:
        examples = dict(run.example_scores)
        examples["sib200/rus_Cyrl"] = examples["sib200/rus_Cyrl"][::2]
        metrics = run.metrics | {
            name: {"accuracy": float(np.mean(scores))} for name, scores in examples.items()
        }
        shorter.append(run.replaced(example_scores=examples, metrics=metrics))
    (found,) = transfers(shorter)
    each = averages(found)
    scores = [float(np.mean(found.scores(split))) for split in found.targets.values()]
    assert each.target.estimate == pytest.approx(np.mean(scores))
    assert each.target.low < each.target.estimate < each.target.high
    assert each.retention.estimate == pytest.approx(np.mean(scores) / 0.8)


def test_a_metric_that_is_no_mean_gets_intervals_over_seeds():
    shares = ((0.8, 0.7, 0.4), (0.7, 0.5, 0.3), (0.9, 0.8, 0.5))
    runs = without_examples([transferred("full", s, each) for s, each in enumerate(shares)])
    (found,) = transfers(runs)
    each = averages(found)
    assert {each.source.over, each.target.over, each.retention.over} == {"seeds"}
    assert each.retention.estimate == pytest.approx(np.mean([0.55, 0.4, 0.65]) / 0.8)
    linear = [2 / 3 + (t - 2 / 3 * s) / 0.8 for s, t in ((0.8, 0.55), (0.7, 0.4), (0.9, 0.65))]
    interval = statistics.seed_interval(linear)
    assert (each.retention.low, each.retention.high) == pytest.approx((interval.low, interval.high))


def test_a_source_score_of_nothing_has_no_retention():
    runs = without_examples([transferred("full", s, (0.0, 0.1, 0.1)) for s in (0, 1)])
    (found,) = transfers(runs)
    assert np.isnan(averages(found).retention.estimate)
    (same,) = transfers([transferred("full", s, (0.0, 0.1, 0.1)) for s in (0, 1)])
    assert np.isnan(averages(same).retention.estimate)


def test_summary_ranks_with_ties_and_marks_what_is_inflated():
    bad = [transferred("head", seed, (0.27, 0.3, 0.3)) for seed in (0, 1, 2)]
    near = [transferred("near", seed, (0.8, 0.7, 0.405)) for seed in (0, 1, 2)]
    rows = summary([*experiment(), *bad, *near, joint(0), joint(1)])
    rows = rows.set_index("method")
    assert rows.index[0] == "madx"
    assert rows["rank"].to_dict() == {
        "madx": 1,
        "full": 2,
        "near": 2,
        "full, multi-task": 2,
        "lora": 5,
        "head": 5,
        "majority": 5,
    }
    assert rows.loc["head", "inflated"]
    assert rows.loc["head", "retention"] > 1 > rows.loc["full", "retention"]
    assert not rows.loc[["full", "lora", "madx", "near"], "inflated"].any()
    assert rows.loc["full", ["difference", "verdict"]].isna().all()
    assert rows.loc["lora", "verdict"] == "worse"
    assert set(rows["majority"]) == {0.25}


def test_methods_on_other_languages_are_not_compared():
    other = [
        transferred("lora", s, others=("sib200/deu_Latn", "sib200/tur_Latn")) for s in (0, 1, 2)
    ]
    full = [transferred("full", s) for s in (0, 1, 2)]
    rows = summary([*full, *other]).set_index("method")
    assert rows.loc["lora", ["difference", "verdict", "rank", "inflated"]].isna().all()
    with pytest.raises(RecordError, match="same languages"):
        difference(transfers(other)[0], transfers(full)[0])


def test_budgets_count_rows_rates_and_texts():
    rows = budgets(experiment()).set_index("method")
    assert rows.loc["lora", ["rates", "seeds", "source_rows"]].tolist() == [2, 3, 700]
    assert rows.loc["lora", "source_tokens"] == pytest.approx(1001)
    assert rows.loc["majority", "rates"] == 0
    assert set(rows["target_rows"]) == {0}
    assert rows["target_text_tokens"].to_dict() == {
        "majority": 0,
        "full": 0,
        "lora": 0,
        "madx": 180_000,
    }
    assert rows.loc["madx", ["source_text_tokens", "target_text_rows"]].tolist() == [90_000, 6000]


def test_what_one_more_language_costs():
    rows = trade_off([*experiment(), joint(0)]).set_index("method")
    assert rows["bytes"].to_dict() == {
        "majority": 440,
        "full": 20_040,
        "lora": 440,
        "madx": 2440,
        "full, multi-task": 440,
    }
    assert rows["seconds"].to_dict() == {
        "majority": 3,
        "full": 3,
        "lora": 3,
        "madx": 23,
        "full, multi-task": 3,
    }
    assert rows.loc["madx", ["language_seconds", "language_bytes"]].tolist() == [20, 2000]
    assert rows.loc["full", ["language_seconds", "language_bytes"]].tolist() == [0, 0]
    assert rows["tasks"].to_dict()["full, multi-task"] == 2
    assert rows.loc["majority", "flops"] == 0
    assert rows["flops"].isna().sum() == 4  # unknown stays unknown
    with pytest.raises(RecordError, match="load all records"):
        trade_off([r for r in experiment() if r.settings.task != "bible/ru"])


def test_flops_are_those_of_all_that_was_trained():
    def counted(record):
        trains = record.settings.learning_rate is not None
        flops = TrainingFlops(closed_form=int(1e9 * record.seconds["train"]), hugging_face=0)
        return record.replaced(flops=flops if trains else None)

    rows = trade_off([counted(r) for r in experiment()]).set_index("method")
    assert rows["flops"].to_dict() == {"majority": 0, "full": 2e9, "lora": 2e9, "madx": 22e9}
    assert rows["language_flops"].to_dict()["madx"] == 20e9
    listed = language_adapters([counted(r) for r in experiment()])
    assert listed["flops"].tolist() == [20e9] * 3


def test_language_adapters_are_listed_once():
    swapped = {"deu_Latn": language_run("ru").id, "rus_Cyrl": language_run("de").id}
    uses = {"language": language_run("en").id, "languages": swapped}
    wrong = transferred("wrong", shares=(0.8, 0.7, 0.5), model_options={"uses": uses})
    rows = language_adapters([*experiment(), wrong]).set_index("texts")
    assert list(rows.index) == ["bible/de", "bible/en", "bible/ru"]
    assert rows.loc["bible/ru", ["method", "seconds", "bytes"]].tolist() == [
        "madx-language",
        20,
        2000,
    ]


def test_nothing_makes_empty_tables():
    for made in (table, by_language, summary, budgets, trade_off, language_adapters):
        assert made([language_run("sw")]).empty
