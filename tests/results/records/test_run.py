import hashlib
import json

import pytest
from pydantic import ValidationError

from peftlab.errors import RecordError
from peftlab.results.records.run import Record, RunSettings
from tests.results.made import record, settings


def test_a_record_comes_back_equal():
    made = record()
    again = Record.from_json(made.to_json())
    assert again == made
    assert again.to_json() == made.to_json()


def test_the_file_has_one_key_a_line():
    text = record().to_json()
    assert set(json.loads(text)) == set(Record.model_fields)
    assert len(text.splitlines()) == len(Record.model_fields) + 2


def test_the_id_is_stable_across_machines_and_versions():
    # If this changes, every committed record gets a new id and every grid is run again.
    canonical = (
        '{"encoder":"tiny","method":{"name":"full"},"task":"toy",'
        '"training":{"learning_rate":0.001,"seed":0}}'
    )
    assert settings().id == hashlib.sha256(canonical.encode()).hexdigest()[:12]


def test_the_id_tells_runs_apart_and_nothing_else():
    base = settings(encoder_fingerprint="a")
    same = [
        base.model_copy(update={"encoder_fingerprint": "b"}),
        base.model_copy(update={"method_label": "another name"}),
        base.model_copy(update={"training": base.training | {"checkpoint_seconds": 1.0}}),
        RunSettings.model_validate(dict(reversed(base.model_dump().items()))),
    ]
    assert {s.id for s in same} == {base.id}
    others = [
        settings(seed=1),
        settings(rate=2e-3),
        settings(task="other"),
        settings(task_options={"head_layers": 2}),
        settings(label="lora"),
        settings(limits={"train": 10}),
        settings(random_weights=True),
        settings(transfer=["toy/de"]),
        settings(encoder="other"),
    ]
    assert len({s.id for s in [base, *others]}) == len(others) + 1


def test_a_changed_setting_renews_the_id():
    changed = record().replaced(settings=settings(seed=5), experiment="else")
    assert changed.id == settings(seed=5).id
    assert changed.experiment == "else"


def changed(**changes):
    return json.dumps(json.loads(record().to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        (record().to_json()[:300], "Invalid JSON"),
        ("{}", "id: Field required"),
        (changed(id="0123456789ab"), "not that of the settings"),
        (changed(surprise=1), "surprise is no known key"),
        (changed(status="fine"), "status"),
        (changed(status="oom"), "says why"),
        (changed(error="why"), "no error"),
        (changed(metrics={"dev": {"accuracy": 1.0}}), "main metric"),
        (changed(sizes=None), "sizes"),
        (changed(seconds={"load": 1.0}), "no total"),
        (changed(seconds={"load": 1.0, "total": 2.0}), "add up to 1.000 s"),
        (changed(created="yesterday"), "created"),
        (changed(best_step="3"), "best_step"),
        (changed(schema_version=2), "schema_version"),
        (record().to_json().replace('"accuracy": 0.8', '"accuracy": NaN'), "finite"),
    ],
)
def test_a_damaged_record_is_one_sentence(text, words):
    with pytest.raises(RecordError, match=words) as error:
        Record.from_json(text, "some/file.json")
    assert "some/file.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_code_that_makes_a_wrong_record_hears_of_it():
    good = record()
    with pytest.raises(ValidationError):
        Record(id=good.id, settings=good.settings, status="ok")


def test_a_missing_score_is_named():
    with pytest.raises(RecordError, match="'toy/de'"):
        record().score("toy/de")
