"""When runs get to a loss or to a rule's end, and ratios of that, from curves that are known."""

from __future__ import annotations

import math

import pytest

from peftlab.errors import RecordError
from peftlab.results.comparison.curves import (
    Span,
    clearly_above,
    cut_off,
    losses,
    ratio,
    reached,
    stopped,
    target,
    to_stop,
    to_target,
)
from peftlab.results.records.run import EvaluationPoint
from peftlab.timing.intervals import Ratio
from tests.results.made import curve_run, curve_runs, record


def test_the_target_is_what_every_run_of_the_baseline_reaches():
    full = [r for r in curve_runs() if r.settings.method_label == "full"]
    hardest = max(min(loss for _, loss in losses(r)) for r in full)
    assert target(full) == hardest > min(min(loss for _, loss in losses(r)) for r in full)
    assert target(full, slack=0.1) == pytest.approx(1.1 * hardest)
    with pytest.raises(RecordError, match="no run to take a target from"):
        target([])


def test_a_run_reaches_a_target_between_two_evaluations():
    one = curve_run("full", 0, [0.6, 0.4, 0.5])
    assert reached(one, 0.4) == (11, 20)
    assert reached(one, 0.4).middle == 15.5
    assert reached(one, 0.7) == (1, 10)
    assert reached(one, 0.39) == (30, math.inf)
    bare = one.replaced(evaluations=[EvaluationPoint(step=1, epoch=1.0, metrics={"accuracy": 0.5})])
    with pytest.raises(RecordError, match="no validation loss"):
        reached(bare, 0.4)


def paced(run, epochs: float):
    """Return the run with its evaluations so many epochs apart."""
    points = [
        point.model_copy(update={"epoch": round(epochs * n, 9)})
        for n, point in enumerate(run.evaluations, start=1)
    ]
    return run.replaced(evaluations=points)


def test_patience_counts_judgements_without_a_new_best():
    one = curve_run("full", 0, [0.5] * 6, scores=[0.6, 0.7, 0.7, 0.65, 0.7, 0.9])
    assert stopped(one, patience=3) == (50, 0.7)
    assert stopped(one, patience=4) == (math.inf, 0.9)
    # two evaluations an epoch: judged at 20, 40, 60 only
    assert stopped(paced(one, 0.5), patience=1) == (40, 0.7)
    assert stopped(paced(one, 0.5), patience=2) == (math.inf, 0.9)
    # at epochs 0.4, 0.8, 1.2, 1.6, 2.0, 2.4: the first evaluation after an epoch judges it
    assert stopped(paced(one, 0.4), patience=1) == (50, 0.7)
    with pytest.raises(RecordError, match="no evaluation between the epochs 2 and 3"):
        stopped(paced(one, 1.5), patience=1)


def test_a_run_that_has_not_begun_to_learn_is_not_stopped():
    one = curve_run("full", 0, [0.5] * 6, scores=[0.5, 0.5, 0.5, 0.8, 0.7, 0.7])
    assert stopped(one, patience=2) == (30, 0.5)
    assert stopped(one, patience=2, floor=0.5) == (60, 0.8)
    assert stopped(one, patience=3, floor=0.5) == (math.inf, 0.8)
    assert stopped(one, patience=2, floor=0.9) == (math.inf, 0.8)


def test_clearly_above_the_majority():
    made = record("majority", accuracy=0.6, rate=None)
    share, rows = made.score("dev"), made.sizes.dev
    expected = share + 2 * math.sqrt(share * (1 - share) / rows)
    assert clearly_above([made]) == pytest.approx(expected)
    nothing = made.replaced(metrics=made.metrics | {"dev": {made.main_metric: 0.0}})
    assert clearly_above([nothing]) == 0
    assert clearly_above([]) == -math.inf


def runs(label: str, steps: list[float], rate: float = 1e-3) -> list:
    """Runs of 30 steps whose loss first comes below 0.5 at the given step; infinite: never."""
    return [
        curve_run(label, seed, [0.4 if 10 * n >= step else 0.6 for n in (1, 2, 3)])
        for seed, step in enumerate(steps)
    ]


def below(run) -> Span:
    """The first evaluation below 0.5, as if it were known that it was reached then."""
    span = reached(run, 0.5)
    return Span(min(span.most, run.evaluations[-1].step), span.most)


def test_a_ratio_of_runs_is_the_geometric_mean_over_seeds():
    found = ratio(runs("lora", [20, 20, 20]), runs("full", [10, 10, 10]), below)
    assert found == pytest.approx((2, 2, 2))
    found = ratio(runs("lora", [10, 20]), runs("full", [10, 10]), below)
    assert found.ratio == pytest.approx(math.sqrt(2))
    assert found.low < 1 < 2 < found.high


def test_seeds_are_paired():
    ours, theirs = runs("lora", [10, 20, 30]), runs("full", [10, 20, 30])
    found = ratio(ours, list(reversed(theirs)), below)
    assert found == pytest.approx((1, 1, 1))


def test_what_was_not_reached_is_a_lower_bound():
    found = ratio(runs("lora", [math.inf] * 3), runs("full", [10, 10, 10]), below)
    assert found.ratio == found.high == math.inf
    assert found.low == pytest.approx(3)  # 30 steps at least, over 10
    found = ratio(runs("lora", [10, 10, 10]), runs("full", [math.inf] * 3), below)
    assert (found.ratio, found.low) == (0, 0)
    assert found.high == pytest.approx(1 / 3)


def test_a_step_between_two_evaluations_widens_the_ratio():
    # seen after 20 of steps 11 to 20, over 10 of 1 to 10, in every seed
    ours, theirs = runs("lora", [20] * 3), runs("full", [10] * 3)
    found = ratio(ours, theirs, to_target(theirs, 0.0))
    assert found.ratio == pytest.approx(5.5**-1 * 15.5)
    assert (found.low, found.high) == pytest.approx((11 / 10, 20 / 1))
    found = ratio(runs("lora", [math.inf] * 3), theirs, to_target(theirs, 0.0))
    assert (found.ratio, found.high) == (math.inf, math.inf)
    assert found.low == pytest.approx(30 / 10)


def test_nothing_is_known_where_neither_got_there():
    found = ratio(runs("lora", [math.inf, 10]), runs("full", [math.inf, 10]), below)
    assert math.isnan(found.ratio)
    assert (found.low, found.high) == (0, math.inf)


def test_one_seed_has_no_interval():
    found = ratio(runs("lora", [20]), runs("full", [10]), below)
    assert found.ratio == pytest.approx(2)
    assert math.isnan(found.low)


def test_the_price_of_a_step_multiplies_and_widens():
    ours, theirs = runs("lora", [20, 20, 20]), runs("full", [10, 10, 10])
    found = ratio(ours, theirs, below, Ratio(0.5, 0.4, 0.6))
    assert found == pytest.approx((1, 0.8, 1.2))


def test_runs_without_a_common_seed_are_refused():
    with pytest.raises(RecordError, match="cannot be paired"):
        ratio(runs("lora", [10]), runs("full", [10, 10])[1:], below)


def test_the_rule_of_stopping_judges_once_an_epoch():
    run = curve_run("full", 0, [0.5, 0.4, 0.6])
    assert to_stop(1)(run) == (30, 30)
    assert to_stop(2)(run) == (30, math.inf)
    majority = record("majority", accuracy=0.9, rate=None)
    assert to_stop(1, [majority])(run) == (30, math.inf)  # it has not begun to learn
    low = record("majority", accuracy=0.1, rate=None)
    assert to_stop(1, [low])(run) == (30, 30)
    told = run.settings.model_copy(
        update={"training": {**run.settings.training, "patience_above": 0.7}}
    )
    assert to_stop(1, [low])(run.replaced(settings=told)) == (30, math.inf)
    assert to_stop(1)(run.replaced(settings=told)) == (30, 30)


@pytest.mark.parametrize(
    ("told", "scores", "cut"),
    [
        ({}, [0.5, 0.6, 0.7], False),  # no rule: the epochs are what it was to take
        ({"patience": 2}, [0.5, 0.6, 0.7], True),
        ({"patience": 2}, [0.5, 0.7, 0.6], True),
        ({"patience": 2}, [0.7, 0.7, 0.6], False),  # the first of the best counts
        ({"patience": 2, "patience_above": 0.7}, [0.7, 0.7, 0.6], True),  # it has not begun
        ({"patience": 2, "patience_above": 0.6}, [0.7, 0.7, 0.6], False),
        ({"patience": 2}, [], True),
        ({"patience": 2, "schedule": "linear"}, [0.5, 0.6, 0.7], False),  # all of its plan
    ],
)
def test_a_run_is_cut_off_where_its_epochs_end_before_the_rule(told, scores, cut):
    run = curve_run("full", 0, [0.5] * len(scores), scores=scores)
    training = {**run.settings.training, "schedule": "constant", **told}
    settings = run.settings.model_copy(update={"training": training})
    assert cut_off(run.replaced(settings=settings)) is cut


def test_a_target_is_the_baselines():
    # that all of its runs reach
    theirs = [curve_run("full", n, c) for n, c in enumerate([[0.6, 0.4, 0.5], [0.6, 0.5, 0.3]])]
    assert to_target(theirs, 0.0)(curve_run("lora", 0, [0.5, 0.41, 0.39])) == (21, 30)
    assert to_target(theirs, 0.1)(curve_run("lora", 0, [0.5, 0.41, 0.39])) == (11, 20)
