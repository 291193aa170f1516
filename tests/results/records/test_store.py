import pytest

from peftlab.errors import RecordError
from peftlab.results import Store, frame
from tests.results.made import grid, record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_what_is_saved_is_loaded(store):
    made = grid()
    for one in made:
        path = store.save(one)
        assert path == store.folder / "made" / f"{one.id}.json"
    found = store.load_all("made")
    assert sorted(found, key=lambda r: r.id) == sorted(made, key=lambda r: r.id)
    assert found == store.load_all()
    assert store.load("made", made[0].id) == made[0]
    assert store.has("made", made[0].id)
    assert not store.has("other", made[0].id)


def test_a_run_alone_has_its_place(store):
    alone = record().replaced(experiment="")
    store.save(alone)
    assert store.load_all("") == [alone]


def test_a_different_record_is_not_overwritten_unasked(store):
    first, second = record(accuracy=0.8), record(accuracy=0.7)
    assert first.id == second.id
    path = store.save(first)
    before = path.stat().st_mtime_ns
    assert store.save(first) == path  # equal content: nothing to do
    assert path.stat().st_mtime_ns == before
    with pytest.raises(RecordError, match="different record"):
        store.save(second)
    assert store.load("made", first.id) == first
    store.save(second, overwrite=True)
    assert store.load("made", first.id) == second


def test_a_damaged_file_is_named(store):
    path = store.save(record())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RecordError, match=path.name):
        store.load_all()


def test_a_renamed_file_is_refused(store):
    path = store.save(record())
    path.rename(path.with_name("000000000000.json"))
    with pytest.raises(RecordError, match="000000000000"):
        store.load_all()


def test_a_missing_record_is_named(store):
    with pytest.raises(RecordError, match="no record"):
        store.load("made", "0123456789ab")
    assert store.load_all() == []


def test_half_written_files_and_work_in_progress_are_not_records(store):
    path = store.save(record())
    (path.parent / ".0123456789ab.json.1.tmp").write_text("{")
    work = store.folder / ".peftlab"
    work.mkdir()
    (work / "notes.json").write_text("{")
    assert len(store.load_all()) == 1


def test_the_table_has_a_row_a_record(store):
    for one in grid():
        store.save(one)
    table = frame(store.load_all("made"))
    table = table[(table["task"] == "one") & (table["method"] == "lora")]
    assert len(table) == 4
    assert set(table["seed"]) == {0, 1, 2}
    assert table["test"].max() == pytest.approx(0.82)
    assert set(table["processor"]) == {"a processor"}
    assert table["seconds_total"].eq(3).all()


def test_transfer_scores_have_their_columns():
    table = frame([record(transfer={"toy/de": 0.6})])
    assert table.loc[0, "score:toy/de"] == 0.6
