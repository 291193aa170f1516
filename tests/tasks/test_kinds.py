"""What is particular to a kind: first sub-words, windows, spans, choices, label sets."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from tokenizers import processors

from peftlab import tasks
from peftlab.errors import SettingsError
from peftlab.tasks.questions import best_span
from peftlab.tasks.tagging import first_subwords

from .conftest import right_logits

TAGGED = [
    {"tokens": ["Anna", "sings", "in", "Oslo"], "tags": ["B-PER", "O", "O", "B-LOC"]},
    {"tokens": ["the", "unfathomable", "bridge"], "tags": ["O", "B-LOC", "I-LOC"]},
    {"tokens": ["Oslo", " ", "bridge"], "tags": ["B-LOC", "O", "O"]},
]


def tagging(**options):
    return tasks.task({"train": TAGGED, "dev": TAGGED, "test": TAGGED}, kind="tagging", **options)


def test_the_first_subword_carries_the_tag(tokenizer):
    task = tagging()
    assert task.labels == ("B-LOC", "B-PER", "I-LOC", "O")
    features = task.encode(TAGGED, tokenizer, 64)
    for row, feature in zip(TAGGED, features, strict=True):
        labelled = [i for i in feature["labels"] if i != -100]
        seen = [i for i, word in enumerate(row["tokens"]) if word.strip()]
        assert feature["words"] == seen
        assert [task.labels[i] for i in labelled] == [row["tags"][i] for i in seen]
        starts = [tokenizer.decode([feature["input_ids"][p]]).strip(" #") for p in feature["at"]]
        for start, word in zip(starts, seen, strict=True):
            assert row["tokens"][word].lower().startswith(start.lower())
    evaluation = task.evaluate(TAGGED, features, right_logits(task, features))
    assert evaluation.metrics["span_f1"] == evaluation.metrics["accuracy"] == 1
    assert evaluation.example_scores == [1, 1, 1]


def test_padded_logits_do_not_matter_for_tags(bert):
    task = tagging()
    features = task.encode(TAGGED, bert, 64)
    logits = [np.pad(x, ((0, 9), (0, 0))) for x in right_logits(task, features)]
    assert task.evaluate(TAGGED, features, logits).metrics["accuracy"] == 1


def test_words_behind_the_longest_input_count_as_o_and_are_warned_of(bert):
    task = tagging()
    rows = [{"tokens": ["anna"] * 10, "tags": ["B-PER"] * 10}]
    with pytest.warns(UserWarning, match="6 words of 'data' lie behind max_length=6"):
        features = task.encode(rows, bert, 6)
    [predicted] = task.predict(rows, features, right_logits(task, features))
    assert predicted == ["B-PER"] * 4 + ["O"] * 6
    evaluation = task.score(rows, [predicted])
    assert evaluation.example_scores == [0.4]
    assert evaluation.metrics["span_recall"] == pytest.approx(0.4)


def test_first_subwords_where_a_token_brings_its_space():
    # "ab cde": tokens [CLS] "ab" "▁c" "de" [SEP], the third with the space before it
    assert first_subwords(["ab", "cde"], [(0, 0), (0, 2), (2, 4), (4, 6), (0, 0)]) == (
        [1, 2],
        [0, 1],
    )
    assert first_subwords(["ab", "cde"], [(0, 0), (0, 2), (2, 3), (3, 6)]) == ([1, 3], [0, 1])
    assert first_subwords(["", "b"], [(1, 2)]) == ([0], [1])


def test_parts_of_speech_are_scored_by_accuracy():
    rows = [{"tokens": ["a", "river"], "tags": ["DET", "NOUN"]}]
    task = tasks.task({"train": rows, "dev": rows}, kind="tagging")
    assert task.metrics == ("accuracy",)
    assert tagging().main_metric == "span_f1"


CONTEXT = "anna moves . " * 12 + "the stone stands in oslo . " + "it rained . " * 12
QUESTION = {
    "question": " where is the stone ?",
    "context": CONTEXT,
    "answers": {"text": ["in oslo", "oslo"], "answer_start": [CONTEXT.index("in oslo")] * 2},
}
QUESTION["answers"]["answer_start"][1] += 3


def questions(rows, **options):
    return tasks.task({"train": rows, "dev": rows, "test": rows}, kind="qa", **options)


def test_a_long_context_is_read_through_windows(tokenizer):
    task = questions([QUESTION])
    features = task.encode([QUESTION, QUESTION], tokenizer, 40)
    assert [f["row"] for f in features] == sorted(f["row"] for f in features)
    windows = [f for f in features if f["row"] == 0]
    assert len(windows) > 2
    assert all(len(f["input_ids"]) <= 40 for f in features)
    with_answer = [f for f in windows if f["labels"] != (0, 0)]
    assert with_answer
    assert len(with_answer) < len(windows)
    for f in with_answer:
        first, last = f["labels"]
        assert CONTEXT[f["offsets"][first, 0] : f["offsets"][last, 1]].strip() == "in oslo"
    covered = np.zeros(len(CONTEXT), bool)
    for f in windows:
        for start, end in f["offsets"][f["offsets"][:, 0] >= 0]:
            covered[start:end] = True
    assert all(covered[i] for i, c in enumerate(CONTEXT) if c != " ")


@pytest.mark.parametrize(
    "answer", ["oslo", " oslo", "oslo\u200b", "oslo ", "oslo\u0301"], ids=ascii
)
def test_an_answer_may_begin_or_end_where_no_token_does(bert, answer):
    context = f"the stone stands in {answer.strip(' ')} ."
    begin = context.index(answer.strip(" ")) - answer.startswith(" ")
    row = QUESTION | {
        "context": context,
        "answers": {"text": [answer], "answer_start": [begin]},
    }
    (feature,) = questions([row]).encode([row], bert, 64)
    first, last = feature["labels"]
    found = context[feature["offsets"][first, 0] : feature["offsets"][last, 1]]
    assert found.startswith("oslo")


def test_an_answer_at_the_edge_of_the_text_is_whole_and_one_that_is_cut_is_not(bert):
    row = QUESTION | {
        "context": "  oslo  ",
        "answers": {"text": [" oslo "], "answer_start": [1]},
    }
    (feature,) = questions([row]).encode([row], bert, 64)
    assert feature["labels"] != (0, 0)
    context = "stone " * 60
    row = QUESTION | {
        "context": context,
        "answers": {"text": [context.strip()], "answer_start": [0]},
    }
    features = questions([row]).encode([row], bert, 40)
    assert len(features) > 2
    assert {feature["labels"] for feature in features} == {(0, 0)}


def test_windows_of_a_tokenizer_that_adds_no_special_tokens(bert):
    bare = copy.deepcopy(bert)
    bare.backend_tokenizer.post_processor = processors.Sequence([])
    task = questions([QUESTION])
    features = task.encode([QUESTION], bare, 40)
    assert len(features) > 2
    assert features[0]["input_ids"][0] != bare.cls_token_id
    assert task.evaluate([QUESTION], features, right_logits(task, features)).metrics["f1"] == 1


def test_the_best_span_of_all_windows_is_the_answer(tokenizer):
    task = questions([QUESTION])
    features = task.encode([QUESTION], tokenizer, 40)
    logits = []
    for f in features:
        scores = np.zeros((len(f["input_ids"]), 2), np.float32)
        scores[0] = 50  # [CLS] is no part of the context and must never win
        if f["labels"] != (0, 0):
            scores[f["labels"][0], 0] = scores[f["labels"][1], 1] = 5
        logits.append(scores)
    evaluation = task.evaluate([QUESTION], features, logits)
    assert evaluation.metrics == {"f1": 1, "exact_match": 1}
    assert evaluation.example_scores == [1]


def test_a_question_may_be_longer_than_the_input(tokenizer):
    row = QUESTION | {"question": "where is the stone ? " * 40}
    features = questions([row]).encode([row], tokenizer, 32)
    assert all(len(f["input_ids"]) <= 32 for f in features)
    assert any(f["labels"] != (0, 0) for f in features)


def test_best_span_against_brute_force():
    generator = np.random.default_rng(0)
    for _ in range(30):
        start, end = generator.normal(size=(2, 12))
        value, i, j = best_span(start, end, 4)
        every = {(a, b): start[a] + end[b] for a in range(12) for b in range(a, min(12, a + 4))}
        assert max(every, key=every.get) == (i, j)
        assert value == pytest.approx(max(every.values()))


def test_choices_are_pairs_with_the_premise(bert):
    row = {
        "premise": "it rained",
        "choice1": "the stone is wet",
        "choice2": "anna sings",
        "question": "effect",
        "label": 0,
    }
    task = tasks.task(
        {"train": [row], "dev": [row]},
        kind="choice",
        ask="question",
        prompts={"effect": "so", "cause": "because"},
    )
    [feature] = task.encode([row], bert, 64)
    assert bert.decode(feature["input_ids"][1]) == "[CLS] it rained so [SEP] anna sings [SEP]"
    assert feature["labels"] == 0
    assert task.predict([row], [feature], [np.array([0.1, 0.3])]) == [1]
    assert task.score([row], [1]).metrics == {"accuracy": 0}


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["good", "bad"], ("bad", "good")), ([10, 2], ("2", "10")), ([0, 1], ("0", "1"))],
)
def test_the_label_set_comes_from_train(labels, names, bert):
    rows = [{"text": "river", "label": label} for label in labels]
    task = tasks.task({"train": rows, "dev": rows}, kind="classification")
    assert task.labels == names
    encoded = task.encode(rows, bert, 16)
    assert [names[f["labels"]] for f in encoded] == [str(label) for label in labels]


def test_longer_texts_are_cut_and_rows_without_labels_can_be_predicted(bert):
    rows = [{"text": "river " * 50, "label": "a"}, {"text": "", "label": "b"}]
    task = tasks.task({"train": rows, "dev": rows}, kind="classification")
    long, empty = task.encode(rows, bert, 16)
    assert len(long["input_ids"]) == 16
    assert len(empty["input_ids"]) == 2
    [unlabelled] = task.encode([{"text": "river"}], bert, 16)
    assert "labels" not in unlabelled
    assert task.predict([{"text": "river"}], [unlabelled], [np.array([0.0, 1.0])]) == ["b"]


def test_more_than_a_chunk_is_encoded_in_order(bert):
    rows = [{"text": "river " * (i % 3 + 1), "label": i % 2} for i in range(2_100)]
    task = tasks.task({"train": rows, "dev": rows}, kind="classification")
    features = task.encode(rows, bert, 16)
    assert [f["row"] for f in features] == list(range(2_100))
    assert all(len(f["input_ids"]) == i % 3 + 3 for i, f in enumerate(features))


@pytest.mark.parametrize("kind", ["classification", "tagging", "qa"])
def test_a_sequence_longer_than_the_model_takes(kind, bert):
    rows = {
        "classification": [{"text": "river", "label": i} for i in range(2)],
        "tagging": TAGGED,
        "qa": [QUESTION],
    }[kind]
    task = tasks.task({"train": rows, "dev": rows}, kind=kind)
    with pytest.raises(SettingsError, match="max_length is 129, but the model takes 128 tokens"):
        task.encode(rows, bert, 129)


def test_questions_need_room(bert):
    with pytest.raises(SettingsError, match="max_length is 8"):
        questions([QUESTION]).encode([QUESTION], bert, 8)


def test_majority():
    rows = [{"text": "x", "label": label} for label in "abb"]
    task = tasks.task({"train": rows, "dev": rows, "test": rows}, kind="classification")
    assert tasks.majority(task).metrics["accuracy"] == pytest.approx(2 / 3)
    assert tasks.majority(task).example_scores == [0, 1, 1]
    assert tasks.majority(tagging()).metrics["accuracy"] == pytest.approx(0.5)
    with pytest.raises(SettingsError, match="'qa' has no majority class"):
        tasks.majority(questions([QUESTION]))
