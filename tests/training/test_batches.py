"""Batches: every row once, little padding, and an order that only seed and epoch decide."""

import numpy as np
import pytest
import torch

from peftlab.training import batches


@pytest.fixture
def lengths() -> list[int]:
    return np.random.default_rng(3).integers(4, 60, size=407).tolist()


def test_plan_takes_every_row_once(lengths):
    plan = batches.plan(lengths, 16, seed=1, epoch=0)
    assert sorted(i for batch in plan for i in batch) == list(range(407))
    assert sorted(map(len, plan), reverse=True)[:25] == [16] * 25


def test_plan_is_a_function_of_seed_and_epoch(lengths):
    assert batches.plan(lengths, 16, 1, 2) == batches.plan(lengths, 16, 1, 2)
    assert batches.plan(lengths, 16, 1, 2) != batches.plan(lengths, 16, 1, 3)
    assert batches.plan(lengths, 16, 1, 2) != batches.plan(lengths, 16, 2, 2)


def test_plan_mixes_rows_anew_every_epoch():
    same = [10] * 64
    first = {frozenset(b) for b in batches.plan(same, 8, 0, 0)}
    second = {frozenset(b) for b in batches.plan(same, 8, 0, 1)}
    assert not first & second


def test_batches_hold_little_padding(lengths):
    features = [{"input_ids": [1] * n} for n in lengths]
    real, padded = batches.token_counts(features, batches.plan(lengths, 16, 0, 0))
    assert real == sum(lengths)
    assert padded < 1.1 * real


def test_collate_pads_to_the_longest_row():
    batch = batches.collate(
        [
            {"input_ids": [5, 6, 7], "token_type_ids": [0, 0, 1], "labels": 2},
            {"input_ids": [8], "token_type_ids": [0], "labels": 0},
        ],
        pad_id=9,
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["labels"].dtype == torch.int64


def test_collate_knows_every_shape_of_label():
    two, one = {"input_ids": [5, 6]}, {"input_ids": [7]}
    scores = batches.collate([two | {"labels": 1.5}, one | {"labels": 0.0}], 0)["labels"]
    assert scores.dtype == torch.float32
    tags = batches.collate([two | {"labels": [1, 2]}, one | {"labels": [3]}], 0)["labels"]
    assert tags.tolist() == [[1, 2], [3, -100]]
    spans = batches.collate([two | {"labels": (0, 1)}, one | {"labels": (0, 0)}], 0)["labels"]
    assert spans.tolist() == [[0, 1], [0, 0]]
    assert "labels" not in batches.collate([two | {"labels": 1}, one | {"labels": None}], 0)


def test_collate_lays_choices_one_under_the_other():
    batch = batches.collate(
        [
            {"input_ids": [[1, 2, 3], [4]], "labels": 1},
            {"input_ids": [[5], [6, 7]], "labels": 0},
        ],
        pad_id=0,
    )
    assert batch["num_choices"] == 2
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0], [5, 0, 0], [6, 7, 0]]
    assert batch["labels"].tolist() == [1, 0]


def test_by_length_goes_from_long_to_short():
    features = [{"input_ids": [1] * n} for n in (3, 9, 5)]
    assert batches.by_length(features, 2) == [[1, 2], [0]]
    tasks = [feature | {"task": name} for feature, name in zip(features, "aba", strict=True)]
    assert batches.by_length(tasks, 2) == [[2, 0], [1]]
