"""What is done to stored rows before a task sees them. The first lines are shown in the book."""

from __future__ import annotations

from peftlab.tasks.fields import Row


def labelled(row: Row) -> list[Row]:
    """Rows without a label are left out."""
    hidden = any(name in row and row[name] in (None, -1) for name in ("label", "LABEL"))
    return [] if hidden else [row]


def two_classes(row: Row) -> list[Row]:
    """One and two stars are negative, four and five positive; three stars are left out."""
    stars = row.get("label")
    if stars in (0, 1):
        return [row | {"label": "Negative"}]
    if stars in (3, 4):
        return [row | {"label": "Positive"}]
    return [] if stars == 2 else [row]


def without_misc(row: Row) -> list[Row]:
    """Sentences with a name of the class MISC are left out."""
    return [] if {7, 8, "B-MISC", "I-MISC"} & set(row.get("ner_tags", ())) else [row]


def truth_value(row: Row) -> list[Row]:
    """The label is the field hyperpartisan, where there is one, as the word true or false."""
    stated = row.get("hyperpartisan")
    return [row | {"label": str(stated).lower()}] if isinstance(stated, bool) else [row]


def from_zero(row: Row) -> list[Row]:
    """The answers are counted from 0; the stored label counts them from 1."""
    label = str(row.get("label", "")).strip()
    return [row | {"label": int(label) - 1}] if label.isdecimal() else [row]


def answered(row: Row) -> list[Row]:
    """Questions without an answer in the context are left out; a wrong start is looked up.

    Rows may be questions, or whole files as the hub has them (articles, paragraphs, questions).
    """
    if "data" in row:
        nested = [
            {"id": str(qa["id"]), "context": paragraph["context"], "question": qa["question"]}
            | {"answers": _by_field(qa["answers"])}
            for article in row["data"]
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
        ]
        return [each for question in nested for each in answered(question)]
    context, answers = row["context"], row["answers"]
    found = []
    for text, start in zip(answers["text"], answers["answer_start"], strict=True):
        there = start is not None and start >= 0 and context.startswith(text, start)
        start = start if there else context.find(text)
        if text and start >= 0:
            found.append({"text": text, "answer_start": start})
    return [row | {"answers": _by_field(found)}] if found else []


def with_words(row: Row) -> list[Row]:
    """Empty lines and headings are left out."""
    text = str(row.get("text", "")).strip()
    return [row] if text and not text.startswith("=") else []


def _by_field(answers: list[Row]) -> Row:
    return {name: [answer[name] for answer in answers] for name in ("text", "answer_start")}
