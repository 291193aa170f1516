"""The noise floor, on runs whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from peftlab.errors import RecordError
from peftlab.results.comparison.noise import floors, noise, power
from peftlab.results.comparison.statistics import summarise
from tests.results.made import record


def runs(sd: float, count: int = 12, examples: int = 400):
    """Runs that answer each example rightly with a probability of its own, shifted by the seed."""
    random = np.random.default_rng(0)
    ease = random.uniform(0.6, 1.0, examples)
    made = []
    for seed in range(count):
        right = random.random(examples) < np.clip(ease + random.normal(0, sd), 0, 1)
        scores = right.astype(float).tolist()
        one = record("full", seed=seed, rows=examples)
        made.append(
            one.replaced(
                example_scores={"test": scores},
                metrics={"dev": {"accuracy": 0.8}, "test": {"accuracy": float(right.mean())}},
            )
        )
    return made


def test_the_floor_grows_with_the_noise_and_shrinks_with_seeds():
    quiet, loud = noise(runs(0.0), draws=100), noise(runs(0.05), draws=100)
    assert loud.floor > 1.5 * quiet.floor
    assert loud.sd > quiet.sd
    assert noise(runs(0.05), seeds=6, draws=100).floor < loud.floor
    assert quiet.runs == 12 and quiet.seeds == 3
    assert quiet.over == "seeds and examples"


def test_without_noise_between_seeds_false_alarms_are_rare():
    found = noise(runs(0.0), draws=100)
    assert found.false_alarms <= 0.1
    # what is seen in four of five comparisons is more than what chance does in one of twenty
    assert 2 < found.detectable / found.floor < 5  # about 3.8; 7.5 with whole widths


def test_the_floor_is_what_95_of_100_differences_do_not_exceed():
    """One run of many is odd: it is in one of 15 pairs of 30 runs, and in one of 30 of 60."""

    def floor(count):
        made = [record("full", seed=s, accuracy=0.8 + 0.1 * (s == 0)) for s in range(count)]
        return floors(made, seeds=1, draws=4000)["tiny", "toy", 200]

    assert floor(30) == pytest.approx(0.1)
    assert floor(60) == 0


@pytest.mark.parametrize("n", [2, 3, 6])
def test_power_is_how_often_a_true_difference_is_seen(n):
    """Simulated: of differences so large as the median interval could have shown, 80 % are seen."""
    random = np.random.default_rng(n)
    drawn = random.normal(size=(40_000, n))
    half = t.ppf(0.975, n - 1) * drawn.std(axis=1, ddof=1) / n**0.5
    true = power(n, "seeds") * np.median(half)
    assert np.mean(np.abs(drawn.mean(axis=1) + true) > half) == pytest.approx(0.8, abs=0.01)


def test_with_many_seeds_or_examples_power_is_that_of_a_normal():
    normal = (1.9600 + 0.8416) / 1.9600
    assert power(1, "examples") == pytest.approx(normal, abs=1e-3)
    assert power(2000, "seeds") == pytest.approx(normal, abs=1e-3)


def test_equal_runs_have_no_noise():
    one = runs(0.0)[0]
    settings = [
        one.settings.model_copy(update={"training": {"seed": s, "learning_rate": 1e-3}})
        for s in range(6)
    ]
    found = noise([one.replaced(settings=each) for each in settings], draws=5)
    assert found[3:7] == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_what_is_no_repetition_is_refused():
    with pytest.raises(RecordError, match="5 runs are too few for two groups of 3: run 1 more"):
        noise(runs(0.0)[:5])
    with pytest.raises(RecordError, match="2 cells"):
        noise([*runs(0.0), record("lora")])
    with pytest.raises(RecordError, match="2 rates"):
        noise([*runs(0.0), record("full", rate=1e-4)])


def test_a_difference_below_the_floor_of_its_place_is_a_tie():
    repeated = runs(0.05)
    here = floors(repeated, draws=100)
    assert here == {("tiny", "toy", 400): pytest.approx(noise(repeated, draws=100).floor)}
    full = [record("full", seed=s, accuracy=0.8, rows=400) for s in range(3)]
    lora = [record("lora", seed=s, accuracy=0.74, rows=400) for s in range(3)]

    def lora_row(floors):
        return summarise([*full, *lora], floors=floors).set_index("method").loc["lora"]

    assert lora_row(None)["verdict"] == "worse"
    assert lora_row({("tiny", "toy", 400): 0.07})["verdict"] == "tie"
    assert lora_row({("tiny", "toy", 400): 0.07})["floor"] == 0.07
    assert lora_row({("tiny", "toy", 400): 0.05})["verdict"] == "worse"
    # another number of rows is another place
    assert lora_row({("tiny", "toy", 200): 0.07})["verdict"] == "worse"
