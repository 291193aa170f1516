"""What is asked of the hub for every data set, and what is said when it does not answer."""

from __future__ import annotations

import pytest

from peftlab import tasks
from peftlab.errors import DataError, OfflineError, UnknownNameError
from peftlab.tasks import catalog, sources

from .stored import KEPT, stored

datasets = pytest.importorskip("datasets")
CONVERTED = "hf://datasets/{}@refs%2Fconvert%2Fparquet/{}"

#: Task → the arguments of ``load_dataset``: id, config and revision; or the format and the file of
#: the test split.
ASKED = {
    "glue/rte": ("nyu-mll/glue", "rte", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"),
    "glue/mnli-mismatched": ("nyu-mll/glue", "mnli", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"),
    "squad": ("rajpurkar/squad", None, "7b6d24c440a36b6815f21b70d25016731768db1f"),
    "rct-20k": ("armanc/pubmed-rct20k", None, "091aec1e2384a20b2b36eb96177755ca13dd0b42"),
    "ag-news": ("fancyzhx/ag_news", None, "eb185aade064a813bc0b7f42de02595523103ca4"),
    "imdb": ("stanfordnlp/imdb", "plain_text", "e6281661ce1c48d982bc483cf8a173c1bbeb5d31"),
    "conll2003": ("eriktks/conll2003", None, "refs/convert/parquet"),
    "conll2003-no-misc": ("eriktks/conll2003", None, "refs/convert/parquet"),
    "ncbi-disease": ("ncbi/ncbi_disease", None, "refs/convert/parquet"),
    "xnli/de": ("facebook/xnli", "de", "b8dd5d7af51114dbda02c0e3f6133f332186418e"),
    "paws-x/fr": (
        "google-research-datasets/paws-x",
        "fr",
        "4cd8187c404bda33cb1f62b49b001115862acf37",
    ),
    "xquad/ro": ("google/xquad", "xquad.ro", "51adfef1c1287aab1d2d91b5bead9bcfb9c68583"),
    "mlqa/hi": ("parquet", CONVERTED.format("facebook/mlqa", "mlqa.hi.hi/validation/*.parquet")),
    "tydiqa/ar": (
        "parquet",
        CONVERTED.format("google-research-datasets/tydiqa", "secondary_task/validation/*.parquet"),
    ),
    "wikiann/th": ("unimelb-nlp/wikiann", "th", None),
    "udpos/et": ("google/xtreme", "udpos.Estonian", "ec5f1f46e9af79639a90684a7a70a956c4998f04"),
    "sib200/deu_Latn": ("Davlan/sib200", "deu_Latn", None),
    "amazon-reviews/ja": (
        "mteb/AmazonReviewsClassification",
        "ja",
        "6b5d328eaae8ef408dd7d775040245cf86f92e9d",
    ),
    "amazon-polarity/en": (
        "mteb/AmazonReviewsClassification",
        "en",
        "6b5d328eaae8ef408dd7d775040245cf86f92e9d",
    ),
    "social-iqa": ("lighteval/siqa", None, None),
    "copa": ("aps/super_glue", "copa", None),
    "xcopa/ta": ("cambridgeltl/xcopa", "ta", None),
    "indicxnli/ta": ("parquet", CONVERTED.format("Divyanshu/indicxnli", "ta/test/*.parquet")),
    "naamapadam/hi": ("parquet", CONVERTED.format("ai4bharat/naamapadam", "hi/test/*.parquet")),
    "indicxparaphrase/te": (
        "parquet",
        CONVERTED.format("ai4bharat/IndicXParaphrase", "te/test/*.parquet"),
    ),
    "indicsentiment/ta": (
        "parquet",
        CONVERTED.format("ai4bharat/IndicSentiment", "translation-ta/test/*.parquet"),
    ),
    "indicqa/ta": ("json", "hf://datasets/ai4bharat/IndicQA@main/data/indicqa.ta.json"),
    "indiccopa/te": ("json", "hf://datasets/ai4bharat/IndicCOPA@main/data/test.te.jsonl"),
}


def row_of(name):
    return next(r for r in catalog.ROWS if r.name in (name, name.rpartition("/")[0]))


@pytest.fixture
def hub(monkeypatch):
    """Return a function that puts another one in the place of ``datasets.load_dataset``."""

    def fake(load_dataset):
        monkeypatch.delenv("PEFTLAB_DATA", raising=False)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    for cached in (sources._hub_splits, sources._hub_file):
        cached.cache_clear()
    yield fake
    for cached in (sources._hub_splits, sources._hub_file):
        cached.cache_clear()


def test_every_data_set_of_the_hub_is_asked_for():
    there = {row.name for row in catalog.ROWS if row.hub}
    asked = {row_of(name).name for name in ASKED}
    assert {name for name in there - asked if not name.startswith("glue/")} == set()


@pytest.mark.parametrize("name", ASKED)
def test_rows_of_the_hub(name, hub):
    asked, row = [], row_of(name)

    def load_dataset(path, config=None, *, revision=None, data_files=None):
        rows = datasets.Dataset.from_list(stored(row.name))
        if data_files is None:
            asked.append((path, config, revision))
            return datasets.DatasetDict(dict.fromkeys(row.splits.values(), rows))
        [(split, file)] = data_files.items()
        asked.append((path, file))
        return datasets.DatasetDict({split: rows})

    hub(load_dataset)
    task = tasks.task(name)
    assert asked == []  # nothing is read before it is needed
    assert len(task.rows("test")) == KEPT.get(row.name, 120)
    assert asked == [ASKED[name]]
    origin = task.provenance
    assert (origin["source"], origin["dataset"]) == ("hub", row.hub)
    assert origin["revision"] == row.revision


def test_a_language_among_others_in_one_config(hub):
    rows = [{"id": f"{language}-{i}"} for language in ("arabic", "arabica") for i in range(3)]
    rows = [stored("tydiqa")[0] | row for row in rows]
    hub(lambda path, data_files: {"validation": datasets.Dataset.from_list(rows)})
    assert len(tasks.task("tydiqa/ar").rows("test")) == 3
    with pytest.raises(DataError, match="holds no rows"):
        tasks.task("tydiqa/bn").rows("test")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("xsid/de", "xsid/de/test"),
        ("chemprot", "chemprot/test"),
        ("xnli/hr", "xnli/hr/test"),  # the data set is there, but not this language
        ("udpos/wo", "udpos/wo/test"),
    ],
)
def test_what_is_not_on_the_hub_names_the_folder(name, place, hub):
    hub(lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(OfflineError, match=rf"'{name}' is not on the hub: put it at {place}\.json"):
        tasks.task(name).rows("test")


def raising(error, cause=None):
    def load_dataset(*_, **__):
        raise error from cause

    return load_dataset


def test_a_revision_that_is_gone(hub):
    from huggingface_hub.errors import RevisionNotFoundError

    class Gone(RevisionNotFoundError):
        def __init__(self):
            """Do without the answer of a server."""

    hub(raising(datasets.exceptions.DatasetNotFoundError("doesn't exist"), Gone()))
    with pytest.raises(
        DataError,
        match=r"^The revision '7b6d24c.*' of rajpurkar/squad is gone from the hub: name another in "
        r"the row 'squad' of peftlab/tasks/catalog, or put it at squad/validation\.jsonl\.gz in a "
        r"folder and set PEFTLAB_DATA to that folder\.$",
    ):
        tasks.task("squad").rows("test")


def test_a_language_that_the_hub_does_not_have(hub):
    error = ValueError("BuilderConfig 'deu_Latin' not found. Available: ['deu_Latn', 'eng_Latn']")
    hub(raising(error))
    with pytest.raises(
        UnknownNameError,
        match=r"no config of Davlan/sib200 on the hub 'deu_Latin': did you mean 'deu_Latn'",
    ):
        tasks.task("sib200/deu_Latin").rows("test")


def test_a_split_that_the_hub_does_not_have(hub):
    rows = datasets.Dataset.from_list(stored("udpos"))
    hub(lambda path, config, revision: datasets.DatasetDict({"test": rows}))
    with pytest.raises(DataError, match=r"google/xtreme has no split 'train' \(it has test\)"):
        tasks.task("udpos/yo").rows("train")


def test_test_labels_that_are_hidden(hub):
    rows = datasets.Dataset.from_list([row | {"label": -1} for row in stored("copa")])
    hub(lambda path, config, revision: datasets.DatasetDict({"validation": rows}))
    with pytest.raises(
        DataError, match=r"Row 1 of copa.* the label -1 is not in .* \(labels of this split are hid"
    ):
        tasks.task("copa").rows("test")


def test_files_on_the_hub_are_read_as_they_lie_there(hub, tmp_path, monkeypatch):
    """The patterns of files are those that the library understands, here in a local folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    real = datasets.load_dataset
    folder = tmp_path / "mlqa.de.de" / "validation"
    folder.mkdir(parents=True)
    datasets.Dataset.from_list(stored("mlqa")).to_parquet(folder / "0000.parquet")

    def load_dataset(path, data_files):
        [(split, file)] = data_files.items()
        local = str(tmp_path / file.split("parquet/", 1)[1])
        return real(path, data_files={split: local}, cache_dir=str(tmp_path / "cache"))

    hub(load_dataset)
    assert tasks.task("mlqa/de").rows("test") == stored("mlqa")
