import numpy as np
import pytest
from scipy.stats import t

from peftlab.errors import RecordError
from peftlab.results import crossed_interval, difference, score, summarise
from peftlab.results.comparison.statistics import (
    Interval,
    geometric_mean,
    seed_interval,
    summed_interval,
)
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
    for seeds in (1, 3):
        found = crossed_interval(np.repeat(scores, seeds, axis=0))
        error = (0.8 * 0.2 / 1000) ** 0.5
        assert found.estimate == pytest.approx(0.8)
        assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.01)
    assert crossed_interval(scores).over == "examples"


def test_without_example_noise_it_is_the_t_interval_over_seeds():
    seeds = np.array([0.70, 0.75, 0.83, 0.92])
    found = crossed_interval(np.repeat(seeds[:, None], 50, axis=1))
    over_seeds = seed_interval(list(seeds))
    assert (found.low, found.high) == pytest.approx((over_seeds.low, over_seeds.high))


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("seed_sd", [0.0, 0.02, 0.1])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, seed_sd):
    # of few seeds too, whether they vary less than the examples' mean, as much, or more
    random = np.random.default_rng(0)
    inside, trials = 0, 1000
    for _ in range(trials):
        of_seeds = random.normal(0, seed_sd, (seeds, 1))
        of_examples = random.normal(0, 0.3, (1, 150))
        found = crossed_interval(0.1 + of_seeds + of_examples + random.normal(0, 0.2, (seeds, 150)))
        inside += found.low <= 0.1 <= found.high
    assert 0.93 <= inside / trials <= 0.985


def test_seeds_that_agree_by_chance_do_not_make_it_narrower_than_the_examples_do():
    scores = np.stack([np.roll(np.repeat([1.0, 0.0], [2, 98]), 10 * seed) for seed in range(3)])
    found = crossed_interval(scores)  # in every seed two other rows are right
    examples = crossed_interval(scores.mean(axis=0, keepdims=True))
    assert (found.low, found.high) == pytest.approx((examples.low, examples.high))


def test_one_number_has_no_interval():
    assert np.isnan(crossed_interval(np.ones((1, 1))).low)
    assert crossed_interval(np.array([[1.0], [2.0]])).low == pytest.approx(
        seed_interval([1.0, 2.0]).low
    )


def test_the_parts_of_the_variance_are_those_of_the_textbook():
    # a two-way table by hand: 2 seeds, 3 examples
    table = np.array([[0.0, 1.0, 2.0], [1.0, 4.0, 4.0]])
    of_seeds, of_examples, rest = 6.0, 3.5, 0.5
    found = crossed_interval(table)
    half = (t.ppf(0.975, 1) ** 2 * of_seeds + t.ppf(0.975, 2) ** 2 * (of_examples - rest)) ** 0.5
    half /= 6**0.5
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_the_sum_over_test_sets_adds_their_examples_and_keeps_the_seeds_together():
    random = np.random.default_rng(5)
    seeds = random.normal(0, 1, (3, 1))
    one, other = seeds + np.zeros((3, 20)), seeds + np.zeros((3, 30))
    both = summed_interval([one, other])
    alone = crossed_interval(one)
    assert both.high - both.low == pytest.approx(2 * (alone.high - alone.low))
    apart = [random.normal(0, 1, (1, n)) for n in (200, 300)]
    widths = [each.high - each.low for each in map(crossed_interval, apart)]
    together = summed_interval(apart)
    assert together.estimate == pytest.approx(sum(each.mean() for each in apart))
    assert together.high - together.low == pytest.approx(np.hypot(*widths), rel=0.01)


def test_pairing_by_example_finds_small_differences():
    random = np.random.default_rng(3)
    hard = random.uniform(0, 1, 400)
    base = (random.uniform(0, 1, (3, 400)) * 0.2 + hard > 0.5).astype(float)
    better = base.copy()
    better[:, :20] = 1
    paired = crossed_interval(better, base)
    assert paired.verdict == "better"
    assert crossed_interval(base, better).verdict == "worse"
    assert crossed_interval(base, base).verdict == "tie"
    assert paired.high - paired.low < 0.5 * (
        crossed_interval(better).high - crossed_interval(better).low
    )


def test_the_geometric_mean_is_that_of_logarithms():
    found = geometric_mean([1.0, 2.0, 4.0])
    over_seeds = seed_interval([0.0, np.log(2), np.log(4)])
    assert found.ratio == pytest.approx(2)
    assert np.log(found.high) == pytest.approx(over_seeds.high)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((0, 3), None), ((3,), None)])
def test_what_cannot_be_paired_is_refused(shapes):
    scores, baseline = (None if s is None else np.ones(s) for s in shapes)
    with pytest.raises(RecordError):
        crossed_interval(scores, baseline)


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
