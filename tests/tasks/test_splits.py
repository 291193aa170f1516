"""Splits: cut once, stratified, nested, never overlapping, the same everywhere."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftlab import tasks
from peftlab.errors import DataError, SettingsError, UnknownNameError
from peftlab.tasks.splits import Cut, development, stratified_order

ROWS = [{"text": f"text {i}", "label": "rare" if i % 10 == 0 else "often"} for i in range(400)]


def make(train=ROWS, **more):
    return tasks.task({"train": train, "test": ROWS[:50], **more}, kind="classification")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80), st.integers(0, 5))
def test_every_beginning_keeps_the_shares(strata, seed):
    order = stratified_order(strata, seed)
    assert sorted(order) == list(range(len(strata)))
    whole = Counter(strata)
    for n in range(1, len(order) + 1):
        part = Counter(strata[i] for i in order[:n])
        for label, count in whole.items():
            assert abs(part[label] - n * count / len(strata)) <= len(whole)


def test_the_order_is_pinned():
    assert stratified_order(list("aabab"), 7) == stratified_order(list("aabab"), 7)
    assert stratified_order([None] * 6, 20240607) == [5, 2, 1, 0, 4, 3]


def test_dev_is_cut_from_train_without_overlap():
    task = make()
    assert task.sizes == {"train": 360, "dev": 40, "test": 50}
    train, dev = ({row["text"] for row in task.rows(s)} for s in ("train", "dev"))
    assert not train & dev
    assert train | dev == {row["text"] for row in ROWS}
    assert Counter(row["label"] for row in task.rows("dev")) == {"often": 36, "rare": 4}
    assert task.rows("dev") == make().rows("dev")


def test_a_dev_split_that_is_there_is_kept_whole():
    task = make(validation=ROWS[:7])
    assert task.sizes == {"train": 400, "dev": 7, "test": 50}


def test_the_cut_has_a_largest_size():
    assert len(development(ROWS, [None] * 400, Cut(share=0.5, most=30))) == 30


def test_groups_stay_together():
    rows = [{"title": f"t{i // 9}"} for i in range(200)]
    chosen = development(rows, [None] * 200, Cut(group="title"))
    titles = {rows[i]["title"] for i in chosen}
    assert 0 < len(chosen) <= 20
    assert all((rows[i]["title"] in titles) == (i in set(chosen)) for i in range(200))


def test_limits_are_nested_stratified_and_seeded():
    task = make()
    big, small = task.limit(train=100), task.limit(train=50)
    assert big.rows("train")[:50] == small.rows("train")
    assert Counter(row["label"] for row in small.rows("train")) == {"often": 45, "rare": 5}
    assert task.limit(train=50, seed=1).rows("train") != small.rows("train")
    assert small.sizes == {"train": 50, "dev": 40, "test": 50}
    assert task.sizes["train"] == 360  # the task itself is left alone
    assert task.limit(train=10_000).sizes["train"] == 360
    assert big.limit(train=10).sizes["train"] == 10
    assert task.limits == {}
    assert big.limit(train=10, test=5).limit(train=70).limits == {"train": 10, "test": 5}


def test_a_limit_must_be_positive():
    with pytest.raises(SettingsError, match="limit of the dev split is 0"):
        make().limit(dev=0)


def test_provenance_tells_rows_apart_and_says_what_was_done():
    task, small = make(), make().limit(train=50, seed=3)
    assert task.provenance == make().provenance
    assert task.provenance["sha256"]["train"] != small.provenance["sha256"]["train"]
    assert task.provenance["sha256"]["test"] == small.provenance["sha256"]["test"]
    assert task.provenance["splits"]["dev"] == (
        "cut from train: 10%, at most 1000 rows, stratified, seed 20240607"
    )
    assert "at most 50 rows, stratified, seed 3" in small.provenance["splits"]["train"]


def test_splits_that_are_not_there():
    with pytest.raises(UnknownNameError, match="no split 'tset': did you mean 'test'"):
        make().rows("tset")
    task = tasks.task({"train": ROWS}, kind="classification")
    with pytest.raises(DataError, match=r"has no test split \(it has train, dev\)"):
        task.rows("test")
    with pytest.raises(DataError, match="has 1 row, too few"):
        tasks.task({"train": ROWS[:1]}, kind="classification", labels=("often", "rare")).rows("dev")


def test_held_out_train_rows_are_the_test_split():
    task = tasks.task({"train": ROWS, "test": ROWS[:3]}, kind="classification", held_out=40)
    assert task.options == {"kind": "classification", "held_out": 40}
    assert task.sizes == {"train": 324, "dev": 36, "test": 40}
    parts = [{row["text"] for row in task.rows(split)} for split in task.splits]
    assert set.union(*parts) == {row["text"] for row in ROWS} and sum(map(len, parts)) == len(ROWS)
    assert Counter(row["label"] for row in task.rows("test")) == {"often": 36, "rare": 4}
    # a smaller train set leaves test and dev as they are
    assert task.limit(train=50).rows("test") == task.rows("test")
    assert task.provenance["splits"] == {
        "train": "train without the rows of test and dev",
        "dev": "cut from train without the rows of test: 10%, at most 1000 rows, stratified, "
        "seed 20240607",
        "test": "cut from train: at most 40 rows, stratified, seed 20240607",
    }
    stored = tasks.task(
        {"train": ROWS, "dev": ROWS[:3], "test": ROWS[:3]}, kind="classification", held_out=40
    )
    assert stored.sizes == {"train": 360, "dev": 3, "test": 40}
    assert stored.rows("test") == task.rows("test")


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "40"])
def test_held_out_is_a_number_of_rows(wrong):
    with pytest.raises(SettingsError, match="held_out is"):
        tasks.task({"train": ROWS}, kind="classification", held_out=wrong)


def test_rows_can_be_held_out_only_where_there_are_enough():
    with pytest.raises(DataError, match="has 400 rows, too few to cut a test split"):
        tasks.task({"train": ROWS}, kind="classification", held_out=400).rows("train")
    labels = ("often", "rare")
    alone = tasks.task({"test": ROWS}, kind="classification", labels=labels, held_out=4)
    with pytest.raises(DataError, match="no train split from which 4 rows"):
        alone.rows("test")
