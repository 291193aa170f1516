import numpy as np
import pytest
from scipy.stats import t

from peftlab.errors import RecordError
from peftlab.results import bootstrap, difference, score, summarise
from peftlab.results.comparison.statistics import Interval, seed_interval
from tests.results.made import grid, record


def test_the_t_interval_is_the_textbook_one():
    values = [0.80, 0.82, 0.87]
    found = seed_interval(values)
    mean, half = np.mean(values), t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (mean, mean - half, mean + half)
    )
    assert np.isnan(seed_interval([0.5]).low)


def test_without_seed_noise_it_is_the_binomial_interval():
    scores = np.zeros((1, 1000))
    scores[0, :800] = 1
    found = bootstrap(scores)
    error = (0.8 * 0.2 / 1000) ** 0.5
    assert found.estimate == pytest.approx(0.8)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.over == "examples"


def test_without_example_noise_the_variance_over_few_seeds_is_unbiased():
    # Every example of a seed has the same score: only seeds vary. Drawing S of S seeds would give
    # a standard error too small by sqrt((S - 1) / S).
    seeds = np.array([0.70, 0.75, 0.83, 0.92])
    scores = np.repeat(seeds[:, None], 50, axis=1)
    found = bootstrap(scores, resamples=40_000, confidence=0.6827)
    assert (found.high - found.low) / 2 == pytest.approx(seeds.std(ddof=1) / 2, rel=0.1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside, trials = 0, 150
    for trial in range(trials):
        seeds = random.normal(0, 0.02, (8, 1))
        examples = random.normal(0, 0.3, (1, 150))
        scores = 0.1 + seeds + examples + random.normal(0, 0.2, (8, 150))
        found = bootstrap(scores, resamples=1000, seed=trial)
        inside += found.low <= 0.1 <= found.high
    assert inside / trials >= 0.90


def test_pairing_by_example_finds_small_differences():
    random = np.random.default_rng(3)
    hard = random.uniform(0, 1, 400)
    base = (random.uniform(0, 1, (3, 400)) * 0.2 + hard > 0.5).astype(float)
    better = base.copy()
    better[:, :20] = 1
    paired = bootstrap(better, base)
    assert paired.verdict == "better"
    assert bootstrap(base, better).verdict == "worse"
    assert bootstrap(base, base).verdict == "tie"
    assert paired.high - paired.low < 0.5 * (bootstrap(better).high - bootstrap(better).low)


def test_the_same_data_give_the_same_interval():
    scores = np.random.default_rng(4).uniform(0, 1, (3, 30))
    assert bootstrap(scores) == bootstrap(scores)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((0, 3), None), ((3,), None)])
def test_what_cannot_be_paired_is_refused(shapes):
    scores, baseline = (None if s is None else np.ones(s) for s in shapes)
    with pytest.raises(RecordError):
        bootstrap(scores, baseline)


def test_a_metric_that_is_no_mean_gets_an_interval_over_seeds():
    runs = [record(seed=s, accuracy=0.8) for s in range(3)]
    other = [
        r.replaced(metrics=r.metrics | {"test": {"accuracy": 0.5 + r.settings.seed / 10}})
        for r in runs
    ]
    assert score(runs).over == "seeds and examples"
    assert score(other).over == "seeds"
    assert difference(runs, other).over == "seeds"
    assert difference(runs, other).estimate == pytest.approx(0.2)


def test_only_shared_seeds_are_paired():
    found = difference(
        [record(seed=s, accuracy=0.9) for s in (0, 1, 2)],
        [record(seed=s, accuracy=0.7) for s in (1, 2, 3)],
    )
    assert found.n == 2
    assert found.estimate == pytest.approx(0.2)
    with pytest.raises(RecordError, match="same seeds"):
        difference([record(seed=0)], [record(seed=1)])


def test_a_control_is_paired_with_every_seed():
    majority = [record("majority", rate=None, accuracy=0.5)]
    runs = [record(seed=s, accuracy=0.8) for s in (0, 1, 2)]
    assert difference(runs, majority).estimate == pytest.approx(0.3)
    assert difference(majority, runs).n == 3


def test_the_result_table():
    table = summarise(grid()).set_index(["task", "method"])
    assert list(table.loc["one"].index) == ["majority", "lora", "full"]
    lora = table.loc[("one", "lora")]
    assert lora["mean"] == pytest.approx(0.81)
    assert lora["sd"] == pytest.approx(0.01)
    assert lora["seeds"] == 3
    assert lora["difference"] == pytest.approx(-0.1)
    assert lora["difference_low"] < -0.1 < lora["difference_high"]
    assert lora["verdict"] == "worse"
    assert lora["learning_rate"] == 1e-3
    assert table.loc[("one", "full"), ["difference", "verdict"]].isna().all()
    assert summarise([]).empty


def test_a_tie_is_an_interval_that_holds_zero():
    assert Interval(0.1, -0.1, 0.3, "seeds", 3).verdict == "tie"
    assert Interval(0.1, float("nan"), float("nan"), "seeds", 1).verdict == "tie"
