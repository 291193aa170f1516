"""Figures: drawn from records, for both themes, with everything drawn in the table and in words."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb

from peftlab import plots
from peftlab.errors import RecordError
from peftlab.plots import page
from peftlab.plots.page import THEMES
from tests.results.made import grid, record
from tests.results.transferred import experiment

WITH_TRANSFER = [
    record(
        label,
        "toy",
        seed,
        accuracy=0.9,
        transfer={"toy/de": 0.7 + seed / 10, "toy/fr": 0.6},
        random_weights=random,
    )
    for label in ("full", "lora")
    for seed in (0, 1)
    for random in (False, True)
]
#: Thirty methods whose scores are close, as in the book, three seeds each.
MANY = [
    record(
        f"method-{i:02}",
        "glue/sst2",
        seed,
        accuracy=0.86 - 0.001 * (i % 7) - 0.02 * (i > 26) + seed / 250,
        rows=1000,
        trainable=int(10 ** (3 + i / 7)) if i else 0,
        stored=int(10 ** (3 + i / 10)) if i else 0,
        inference=0 if i % 5 == 0 else int(10 ** (3 + i / 9)),
    )
    for i in range(30)
    for seed in (0, 1, 2)
]
ALL = {
    "overview": lambda: plots.overview([*grid(), *MANY[:9]]),
    "scores": lambda: plots.scores(grid()),
    "differences": lambda: plots.differences(grid()),
    "learning_curves": lambda: plots.learning_curves(grid()),
    "learning_rates": lambda: plots.learning_rates(grid()),
    "transfer": lambda: plots.transfer(WITH_TRANSFER),
    "phases": lambda: plots.phases(grid()),
    "language_map": lambda: plots.language_map(experiment()),
    "language_trade_off": lambda: plots.language_trade_off(experiment()),
}


def contrast(first: str, second: str) -> float:
    """WCAG contrast of two colours."""

    def luminance(colour: str) -> float:
        parts = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        )
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(params=ALL, scope="module")
def plot(request):
    return ALL[request.param]()


def test_axes_are_named_and_texts_can_be_read(plot):
    assert set(plot.figures) == set(THEMES) == {"light", "dark"}
    for theme, figure in plot.figures.items():
        paper = THEMES[theme]["paper"]
        assert figure.get_axes()
        for axis in figure.get_axes():
            labels = [axis.xaxis.label, axis.yaxis.label]
            assert any(label.get_text() for label in labels)
            texts = [*labels, *axis.get_xticklabels(), *axis.get_yticklabels(), axis.title]
            for text in texts:
                if text.get_text():
                    assert contrast(text.get_color(), paper) >= 7
        assert to_rgb(figure.get_facecolor()[:3]) == to_rgb(paper)


def test_there_are_words_and_a_table(plot):
    assert len(plot.alt) > 40
    assert "nan" not in plot.alt
    assert len(plot.table) > 0


def test_the_page_shows_both_themes_with_alt_text_and_the_table(plot):
    text = plot._repr_html_()
    assert text.count("<img") == 2
    assert len(set(re.findall(r'alt="([^"]+)"', text))) == 1
    assert {"only-light", "only-dark"} <= set(re.findall(r'class="([^"]+)"', text))
    assert text.count("<tr") == len(plot.table) + 1


def test_a_narrow_page_scrolls_a_figure_whose_letters_would_get_too_small(plot):
    text = plot._repr_html_()
    assert '<figure style="overflow-x: auto">' in text
    (least,) = {float(x) for x in re.findall(r"min-width: min\((.+?)in, 34rem\)", text)}
    assert least == pytest.approx(0.75 * plot.figure.get_size_inches()[0], rel=1e-2)


def test_the_same_records_give_the_same_drawing(request, plot):
    again = ALL[request.node.callspec.params["plot"]]()
    assert again.svg("dark") == plot.svg("dark")
    assert again.svg("dark") != again.svg("light")
    ElementTree.fromstring(plot.svg())


def test_saved_files_are_the_figure_and_its_table(plot, tmp_path):
    paths = plot.save(tmp_path / "figures", "one")
    assert [p.name for p in paths] == ["one-light.svg", "one-dark.svg", "one.csv"]
    assert len(paths[2].read_text().splitlines()) == len(plot.table) + 1


def test_scores_are_drawn_where_the_table_says():
    plot = plots.scores(grid())
    axes = plot.figure.get_axes()
    assert len(axes) == 2
    part = plot.table[plot.table["task"] == "one"].reset_index(drop=True)
    drawn = {tuple(map(float, line.get_xdata())) for line in axes[0].get_lines()}
    for row in part.itertuples():
        assert (row.mean,) in drawn
        assert (row.low, row.high) in drawn
    assert [t.get_text() for t in axes[0].get_yticklabels()] == list(part["method"])
    assert "full: 0.910" in plot.alt


def test_differences_are_drawn_with_ties_hollow_and_none_left_out_of_the_table():
    plot = plots.differences(grid(), without=["head"])
    assert "full" in set(plot.table["method"])
    part = plot.table[plot.table["task"] == "one"].set_index("method")
    axis = plot.figure.get_axes()[0]
    drawn = {tuple(map(float, line.get_xdata())): line for line in axis.get_lines()}
    for method, row in part.drop(index=["full", "head"], errors="ignore").iterrows():
        marker = drawn[(row["difference"],)]
        assert (row["difference_low"], row["difference_high"]) in drawn
        hollow = to_rgb(marker.get_markerfacecolor()) == to_rgb(THEMES["light"]["paper"])
        assert hollow == (row["verdict"] == "tie"), method
    names = [t.get_text().split("\n")[0] for t in axis.get_yticklabels()]
    assert "full" not in names
    assert "head" not in names


def test_the_noise_of_seeds_is_a_band_where_it_is_known():
    rows = len(grid()[0].example_scores["test"])
    floors = {("tiny", "one", rows): 0.04}
    plot = plots.differences(grid(), floors=floors)
    bands = [axis.patches for axis in plot.figure.get_axes()]
    assert [len(found) for found in bands] == [1, 0]
    ends = bands[0][0].get_extents().transformed(plot.figure.get_axes()[0].transData.inverted())
    assert (ends.x0, ends.x1) == pytest.approx((-0.04, 0.04))
    said = [text.get_text() for text in plot.figure.legends[0].get_texts()]
    assert "the noise of seeds" in said
    assert "the noise of seeds" not in plots.differences(grid()).alt


def test_methods_differ_in_colour_and_marker():
    axis = plots.learning_rates(grid()).figure.get_axes()[0]
    lines = axis.get_lines()
    assert len({line.get_marker() for line in lines}) == len(lines) == 2
    assert len({line.get_color() for line in lines}) == 2


def test_thirty_methods_differ_in_colour_and_marker_too():
    assert len(set(page.styles([f"method {i}" for i in range(100)]).values())) == 100


def test_overview_has_one_row_a_method_with_its_scores_and_counts():
    plot = plots.overview(
        [*MANY, record("majority", rate=None, accuracy=0.5)], "method-05", without=["majority"]
    )
    assert len(plot.table) == 30
    scores, *counts = plot.figure.get_axes()
    names = [text.get_text() for text in scores.get_yticklabels()]
    table = plot.table.set_index("method").loc[names]
    assert table["trainable"].is_monotonic_increasing
    points = [line for line in scores.lines if line.get_marker() not in ("None", "")]
    assert {(float(p.get_xdata()[0]), int(p.get_ydata()[0])) for p in points} == {
        (mean, row) for row, mean in enumerate(table["mean"])
    }
    paper = page.THEMES["light"]["paper"]
    hollow = {int(p.get_ydata()[0]) for p in points if p.get_markerfacecolor() == paper}
    verdicts = table["verdict"].isin(["better", "worse"])
    assert hollow == {row for row, differs in enumerate(verdicts) if not differs}
    assert 0 < len(hollow) < 30
    for axis, count in zip(counts, ("trainable", "stored", "inference"), strict=True):
        assert axis.get_ylim() == scores.get_ylim()
        (line,) = axis.lines
        assert list(line.get_xdata()) == list(table[count])
        assert list(line.get_ydata()) == list(range(30))
        low, high = axis.get_xlim()
        assert all(low < x < high for x in line.get_xdata())
    assert "method-12: 0." in plot.alt


@pytest.mark.parametrize("records", [MANY, grid(), MANY[:3]], ids=["many", "two tasks", "one"])
def test_names_in_the_overview_do_not_overlap(records):
    plot = plots.overview(records)
    for figure in plot.figures.values():
        renderer = RendererAgg(figure.bbox.width, figure.bbox.height, figure.dpi)
        texts = figure.get_axes()[0].get_yticklabels()
        boxes = [text.get_window_extent(renderer) for text in texts]
        assert len(boxes) == plot.table["method"].nunique()
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])


def test_transfer_averages_over_seeds_and_keeps_their_range():
    table = plots.transfer(WITH_TRANSFER, "full").table.set_index(["series", "scored_on"])
    row = table.loc[("full", "de")]
    assert (row["mean"], row["low"], row["high"], row["seeds"]) == pytest.approx(
        (0.75, 0.7, 0.8, 2)
    )
    assert ("full, random weights", "fr") in table.index


def test_phases_add_up_to_the_mean_total():
    table = plots.phases(grid()).table
    assert table.groupby("method")["seconds"].sum().to_dict() == pytest.approx(
        {"full": 3.0, "lora": 3.0}
    )


@pytest.mark.parametrize(
    "draw",
    [
        plots.overview,
        plots.scores,
        plots.differences,
        plots.learning_curves,
        plots.learning_rates,
        plots.transfer,
        plots.phases,
    ],
)
def test_nothing_to_draw_is_one_sentence(draw):
    with pytest.raises(RecordError):
        draw([])
