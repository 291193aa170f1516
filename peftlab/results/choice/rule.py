"""Which method for which needs: a ranking by one stated rule, from records alone.

1. *Scores.* The experiment whose training rows are nearest to the reader's, all its tasks of that
   size. A method stays unless on one of them it is shown to be worse than the best, by more than a
   margin: the whole 95 % interval of the paired difference lies below 0, over more than one seed,
   and the difference itself is larger than the margin and than what training again does, where
   that is recorded. Who scores below one that is out, on every task, is out too: else a wide
   interval would be a merit. For several languages the score is the mean over those that the model
   was not trained in.
2. *Costs.* What stays is ordered by what hurts most, as ratios to full fine-tuning in the nearest
   measured cells. A method ties with the first of its group if their intervals overlap or the
   ratios differ by less than :data:`SAME`; ties share a rank unless the next thing that hurts tells
   them apart.
3. *No record, no rank.* A method that was not scored or not measured is listed without one.

Where the records come from is :mod:`peftlab.results.choice.nearest`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from peftlab.results.choice.nearest import BASELINE, Costs, Runs, Scored, learned, scores
from peftlab.results.choice.needs import AXES, Axis, Needs
from peftlab.results.comparison.statistics import Interval, Place, place
from peftlab.results.records.costs import CostRecord
from peftlab.results.records.run import Record
from peftlab.results.transfer.zero_shot import JOINT
from peftlab.timing.intervals import Ratio

if TYPE_CHECKING:
    from pandas import DataFrame

#: Ratios that differ by less than this share are one and the same to a reader.
SAME = 0.02
#: How the reason begins why a method with a worse score has no rank.
WORSE = "worse than"
#: Bytes of a stored number, fp32.
BYTES = 4


@dataclass(frozen=True)
class Option:
    """A method beside the needs.

    Attributes:
        method: Its label; with ``", multi-task"`` one model for all tasks.
        rank: None: see ``why``.
        why: It has no rank.
        scores: Task → difference to the best there; the best's own is 0.
        ratios: What each thing costs over full fine-tuning, where it is recorded or counted.
        megabytes: On disk for all tasks: the encoder, once if it is shared, and what is stored for
            each task with its head.
        rates: Task → the learning rate that the development split chose.
    """

    method: str
    rank: int | None = None
    why: str = ""
    scores: dict[str, Interval] = field(default_factory=dict)
    ratios: dict[Axis, Ratio] = field(default_factory=dict)
    megabytes: float | None = None
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def out(self) -> bool:
        """Whether a worse score keeps it out."""
        return self.why.startswith(WORSE)

    @property
    def worse(self) -> list[str]:
        """The tasks where it is shown to be worse than the best at all, be it within the margin."""
        return [task for task, found in self.scores.items() if found.n > 1 and found.high < 0]


@dataclass(frozen=True)
class Choice:
    """An answer.

    Attributes:
        needs: What was asked.
        scored: Where the scores are from, in words.
        rows: Training rows of a task there; None: there is no record.
        measured: Thing that hurts → where its costs are from, in words.
        options: Those with a rank first, in its order; then the others.
        learned: Task → the best score less that of the most frequent class: where little was
            learned, being as good as the best means little.
    """

    needs: Needs
    scored: str
    rows: int | None
    measured: dict[Axis, str]
    options: tuple[Option, ...]
    learned: dict[str, Interval] = field(default_factory=dict)

    @property
    def first(self) -> list[Option]:
        """Those that share the first rank."""
        return [option for option in self.options if option.rank == 1]

    def table(self) -> DataFrame:
        """Return one row a method.

        Columns ``rank, method``; for each task the difference to the best score there; for each of
        :data:`AXES` the ratio to full fine-tuning; ``MB`` on disk for all tasks; ``learning rate``,
        or rates where tasks chose different ones; ``why no rank``.
        """
        import pandas as pd

        tasks = list(dict.fromkeys(name for each in self.options for name in each.scores))
        differences = [f"{name}, to the best" for name in tasks]
        rows = [
            (
                "" if each.rank is None else str(each.rank),
                each.method,
                *(_difference(each.scores.get(name)) for name in tasks),
                *(_ratio(each.ratios.get(axis)) for axis in AXES),
                "" if each.megabytes is None else f"{each.megabytes:,.1f}",
                ", ".join(dict.fromkeys(f"{rate:g}" for rate in each.rates.values())),
                each.why,
            )
            for each in self.options
        ]
        columns = ["rank", "method", *differences, *AXES, "MB", "learning rate", "why no rank"]
        return pd.DataFrame(rows, columns=columns)


def choose(
    records: Iterable[Record],
    costs: Iterable[CostRecord],
    needs: Needs,
    margin: float = 0.02,
    floors: Mapping[Place, float] | None = None,
) -> Choice:
    """Rank the methods for some needs; see the rule at the top of this file.

    Args:
        records: Of experiments on tasks that are not generated, all rates and seeds.
        costs: Measured cells of training and inference.
        needs: The reader's.
        margin: A difference that is no larger keeps nobody out.
        floors: See :func:`peftlab.results.comparison.noise.floors`: a difference that is no larger
            than the floor of its place is none.
    """
    records = list(records)
    found = scores(records, needs)
    if found is None:
        return Choice(needs, "no record", None, dict.fromkeys(AXES, "no record"), ())
    where, tasks = found
    differences: dict[str, dict[str, Interval]] = defaultdict(dict)
    methods: dict[str, dict[str, Scored]] = defaultdict(dict)
    noise: dict[str, float] = {}
    for task, there in tasks.items():
        best = max(there, key=lambda each: each.mean)
        if floors and not best.transfer:
            encoder, _, scored = place(best.runs[0])  # a model of several tasks was run on all
            noise[task] = floors.get((encoder, task, scored), 0.0)
        for each in there:
            differences[each.method][task] = each.minus(best)
            methods[each.method][task] = each
    words = f"{where.experiment}: {', '.join(tasks)}; {where.encoder}; {where.rows:,} train rows"
    others = {
        len(each.transfer.targets) for there in tasks.values() for each in there if each.transfer
    }
    if others:
        words += f"; mean over {max(others)} languages that it was not trained in"
    options = [
        Option(name, scores=differences[name], rates=_rates(found))
        for name, found in methods.items()
    ]
    measured: dict[Axis, str] = dict.fromkeys(AXES, "no record of full fine-tuning")
    if BASELINE in methods:
        runs = {
            name: {task: each.runs for task, each in found.items()}
            for name, found in methods.items()
        }
        cost = Costs(costs, needs, runs[BASELINE])
        measured = cost.words
        if needs.tasks > 1 and BASELINE + JOINT not in methods:
            runs[BASELINE + JOINT] = runs[BASELINE]
            options.append(Option(BASELINE + JOINT))
        options = [_priced(option, runs[option.method], cost) for option in options]
    ranked = tuple(_ranked(options, needs, margin, noise))
    return Choice(needs, words, where.rows, measured, ranked, learned(records, where, tasks))


def _rates(found: Mapping[str, Scored]) -> dict[str, float]:
    rates = {task: each.runs[0].settings.learning_rate for task, each in found.items()}
    return {task: rate for task, rate in rates.items() if rate is not None}


def _priced(option: Option, runs: Runs, cost: Costs) -> Option:
    shared = option.method.endswith(JOINT)
    megabytes = cost.numbers(runs, shared) * BYTES / 1e6
    return replace(option, ratios=cost.ratios(runs, shared), megabytes=megabytes)


def _ranked(
    options: Sequence[Option], needs: Needs, margin: float, noise: Mapping[str, float]
) -> list[Option]:
    """Return the options in their order, with ranks or the reason why there is none."""
    lost = {option.method: _lost(option, margin, noise) for option in options}
    judged = [replace(option, why=_why(option, options, lost, needs)) for option in options]
    groups = [[option for option in judged if not option.why]]
    for axis in needs.hurts:
        groups = [part for group in groups for part in _split(group, axis)]
    done: list[Option] = []
    for group in groups:
        rank = len(done) + 1
        done += [replace(option, rank=rank) for option in sorted(group, key=_shortfall)]
    return done + sorted((o for o in judged if o.why), key=lambda o: (o.why, o.method))


def _lost(option: Option, margin: float, noise: Mapping[str, float]) -> list[str]:
    """Return the tasks on which a method is shown to be worse than the best by more than counts."""
    return [
        name
        for name, found in option.scores.items()
        if name in option.worse and -found.estimate > max(margin, noise.get(name, 0.0))
    ]


def _why(
    option: Option, options: Sequence[Option], lost: Mapping[str, list[str]], needs: Needs
) -> str:
    """Say why a method has no rank; "" if it has one."""
    if tasks := lost[option.method]:
        return f"{WORSE} the best on {', '.join(tasks)}"
    for other in options:
        if lost[other.method] and _below(option, other, lost[other.method]):
            return f"{WORSE} {other.method}, which is out"
    missing: list[str] = [] if option.scores else ["score"]
    missing += [axis for axis in needs.hurts if axis not in option.ratios]
    return f"no record of {', '.join(missing)}" if missing else ""


def _below(option: Option, other: Option, lost: Sequence[str]) -> bool:
    """Say whether a method scores below another on all its tasks, and on those that it has lost."""
    return {*lost} <= option.scores.keys() <= other.scores.keys() and all(
        found.estimate < other.scores[task].estimate for task, found in option.scores.items()
    )


def _shortfall(option: Option) -> tuple[float, str]:
    """Order by the mean difference to the best scores, the best first."""
    return -fmean(found.estimate for found in option.scores.values()), option.method


def _split(group: Sequence[Option], axis: Axis) -> list[list[Option]]:
    """Divide options into groups of ties, the cheapest first."""
    parts: list[list[Option]] = []
    for option in sorted(group, key=lambda each: each.ratios[axis].ratio):
        ratio = option.ratios[axis]
        first = parts[-1][0].ratios[axis] if parts else None
        if first and (ratio.low <= first.high or ratio.ratio <= first.ratio * (1 + SAME)):
            parts[-1].append(option)
        else:
            parts.append([option])
    return parts


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return "no record"
    if interval.low == interval.high == 0:
        return "the best"
    told = f"{interval.estimate:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    return f"{told}, worse" if interval.n > 1 and interval.high < 0 else told


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return "no record"
    return f"{ratio.ratio:.3g}" if ratio.low == ratio.high else str(ratio)
