"""The command line: thin. It reads arguments, calls the package and prints.

A mistake of the user is one sentence on stderr and exit code 2; an interruption is exit code 130.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftlab.errors import PeftlabError, SettingsError

if TYPE_CHECKING:
    from peftlab.methods import Method


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands behind ``peftlab``; by default that of this process.

    Returns:
        The exit code: 0, 1 (a run of the grid failed), 2 (a mistake) or 130 (interrupted).
    """
    options = parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except PeftlabError as error:
        print(f"peftlab: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"peftlab: {error}; check the path and the space on the disk.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("peftlab: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from peftlab import __version__

    top = argparse.ArgumentParser(
        prog="peftlab", description="Parameter-efficient fine-tuning, exactly and measured."
    )
    top.add_argument("--version", action="version", version=f"peftlab {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="do the runs of an experiment file",
        description="Do the runs of an experiment file that are not recorded yet. Started twice, "
        "two processes share the work; killed, it goes on where it was.",
    )
    run.add_argument("file", type=Path, metavar="FILE.toml")
    run.add_argument("--folder", type=Path, default=Path("book/results"), help="of the records")
    run.add_argument("--limit", type=_positive, metavar="N", help="stop after N runs")
    run.add_argument(
        "--minutes", type=_minutes, metavar="N", help="begin nothing after so many minutes"
    )
    run.add_argument("--dry-run", action="store_true", help="list the runs, do nothing")
    run.add_argument("--retry", action="store_true", help="do again what failed")
    run.set_defaults(do=_run)

    cost = commands.add_parser(
        "cost",
        help="measure what methods cost on this machine",
        description="Measure a training step, or a forward pass, of several methods in turns, as "
        "ratios to the first. Weights are random where only the shape is named. Close other "
        "programs before.",
    )
    cost.add_argument("encoder", metavar="ENCODER", help="a shape such as bert-base, or an encoder")
    cost.add_argument("--methods", nargs="+", default=["full", "pfeiffer-16", "lora-8"])
    cost.add_argument("--mode", choices=("train", "inference"), default="train")
    cost.add_argument("--batch", type=_positive, default=8, metavar="TEXTS")
    cost.add_argument("--length", type=_positive, default=64, metavar="TOKENS")
    cost.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    cost.add_argument("--rounds", type=_positive, default=10)
    cost.add_argument("--json", type=Path, metavar="FILE", help="write the record there")
    cost.set_defaults(do=_cost)

    bench = commands.add_parser("bench", help="measure peftlab against other libraries")
    bench.add_argument("name", metavar="NAME")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    bench.add_argument(
        "--folder", type=Path, help="record rows and machine in this folder of results"
    )
    bench.set_defaults(do=_bench)

    methods = commands.add_parser(
        "methods",
        help="list the methods and their presets, with their sizes",
        description="List the methods and their presets with the parameters that each trains, "
        "stores and adds at inference, and the FLOPs that it adds to a forward pass, per token, "
        "while it is not merged.",
    )
    methods.add_argument(
        "--encoder", default="bert-base", metavar="SHAPE", help="count on it (default: bert-base)"
    )
    methods.add_argument(
        "--json", type=Path, metavar="FILE", help="write the counts on every known shape there"
    )
    methods.set_defaults(do=_methods)

    claims = commands.add_parser(
        "claims",
        help="say what the records say about what papers claim",
        description="Print the ledger: each claim with its verdict, computed from the records, and "
        "for what is open the command that would settle it.",
    )
    claims.add_argument("ids", nargs="*", metavar="ID", help="such as C1.1 (default: all)")
    claims.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts there")
    claims.add_argument("--results", type=Path, metavar="FOLDER", help="of other records")
    claims.set_defaults(do=_claims)

    pretrain = commands.add_parser(
        "pretrain",
        help="pretrain an encoder from a recipe",
        description="Pretrain an encoder from a recipe. Killed, it goes on from its checkpoint.",
    )
    pretrain.add_argument("recipe", type=Path, metavar="RECIPE.toml")
    pretrain.add_argument(
        "--folder", type=Path, help="where the encoder goes (default: the recipe's name, here)"
    )
    pretrain.set_defaults(do=_pretrain)
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes")
    return number


def _run(options: argparse.Namespace) -> int:
    from peftlab.experiments import Grid, open_task, read
    from peftlab.files import read_toml
    from peftlab.results.records.store import Store

    if read_toml(options.file).get("kind") == "cost":
        return _run_costs(options)
    experiment = read(options.file)
    for task in experiment.tasks:  # a wrong name shall not show after hours; this reads no rows
        open_task(task.name, task.how)
    grid = Grid(
        experiment,
        Store(options.folder),
        report=lambda line: print(line, flush=True),
        retry=options.retry,
    )
    if options.dry_run:
        awaited = grid.awaited()
        to_do = 0
        for run in (*grid.earlier(), *grid.runs()):
            recorded = run.id in grid.records and run.id not in awaited
            to_do += not recorded
            rate = "" if run.learning_rate is None else f" rate {run.learning_rate:g}"
            control = " random weights" if run.random_weights else ""
            print(
                f"{run.id} {'done' if recorded else 'to do':5} {run.encoder}{control} {run.task} "
                f"{run.method_label}{rate} seed {run.seed}"
            )
        left = grid.left()
        print(f"{left} to do, {left - to_do} of them when the learning rates are chosen")
        return 0
    done = grid.work(options.limit, options.minutes)
    failed = [record for record in grid.records.values() if record.status != "ok"]
    print(
        f"{done} done now, {len(grid.records)} recorded, {grid.left()} left, {len(failed)} failed"
    )
    return 1 if failed else 0


def _run_costs(options: argparse.Namespace) -> int:
    from peftlab.costs import CostExperiment, Sweep
    from peftlab.costs.sweep import describe
    from peftlab.results import cost_store

    sweep = Sweep(
        CostExperiment.from_toml(options.file),
        cost_store(options.folder),
        report=lambda line: print(line, flush=True),
        retry=options.retry,
    )
    if options.dry_run:
        pending = sweep.pending()
        for plan in sweep.plans():
            print(f"{plan.id} {'to do' if plan in pending else 'done':5} {describe(plan)}")
        return 0
    done = sweep.work(options.limit, options.minutes)
    print(f"{done} cells measured, {len(sweep.pending())} left")
    return 0


def _cost(options: argparse.Namespace) -> int:
    from peftlab.costs import CostExperiment, Rounds, Sweep, measure
    from peftlab.results import cost_store
    from peftlab.results.comparison.cost_table import text

    _check_place(options.json)
    experiment = CostExperiment(
        name="cost",
        kind="cost",
        question="What do these methods cost here?",
        encoders=[options.encoder],
        cells=[(options.batch, options.length)],
        modes=[options.mode],
        methods={name: {"name": name} for name in options.methods},
        baseline=options.methods[0],
        precisions=[options.precision],
        rounds=Rounds(min_rounds=max(2, options.rounds), parts=max(2, options.rounds // 2)),
    )
    (settings,) = Sweep(experiment, cost_store(Path())).plans()
    record = measure(settings, experiment.rounds)
    print(text(record))
    if options.json is not None:
        options.json.write_text(record.to_json(), encoding="utf-8")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from peftlab import bench
    from peftlab.results.records.store import bench_store

    measure = bench.get(options.name)
    _check_place(options.json)
    rows = measure()
    print(f"{'name':<12} {'against':<24} {'ratio':>6}   95 % interval   unit")
    for row in rows:
        print(
            f"{row.name:<12} {row.against:<24} {row.ratio:>6.2f}   "
            f"{row.low:>5.2f} – {row.high:<5.2f}   {row.unit}"
        )
    _write([row.model_dump() for row in rows], options.json)
    if options.folder is not None:
        record = bench.recorded(options.name, rows)
        print(f"recorded in {bench_store(options.folder).save(record, overwrite=True)}")
    return 0


def _methods(options: argparse.Namespace) -> int:
    from peftlab import methods
    from peftlab.encoders import PAPERS
    from peftlab.methods.sizes import LENGTH, sizes

    _check_place(options.json)
    here, left_out = sizes(options.encoder)
    catalogue = methods.catalogue()
    wide = max(map(len, catalogue))
    print(f"on {options.encoder}, without the head; FLOPs per token of a text of {LENGTH} tokens")
    print(f"{'':{wide}} {'trainable':>12} {'stored':>12} {'inference':>12} {'added FLOPs':>12}")
    for name, cls in methods.classes().items():
        print(f"{name} ({cls.__name__}, {cls.paper})")
        for size in here:
            method = catalogue[size.method]
            if method.name == name:
                merge = "can be merged" if method.mergeable else "cannot be merged"
                print(
                    f"{size.method:{wide}} {size.trainable:>12,} {size.stored:>12,} "
                    f"{size.inference:>12,} {size.flops:>12,.0f}  "
                    f"{', '.join([merge, *_changed(method)])}"
                )
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    if options.json is not None:
        rows = []
        for shape in PAPERS:
            found, left_out = sizes(shape)
            rows += [
                {
                    "method": size.method,
                    "encoder": size.encoder,
                    "trainable": size.trainable,
                    "stored": size.stored,
                    "inference": size.inference,
                }
                for size in found
            ]
            for name, reason in left_out.items():
                print(f"left out of {options.json}: {name} on {shape}: {reason}")
        _write(rows, options.json)
    return 0


def _claims(options: argparse.Namespace) -> int:
    from peftlab.claims import book_ledger, findings, text

    _check_place(options.json)
    ledger, evidence = book_ledger(options.results)
    found = findings(ledger, evidence, ledger.chosen(options.ids))
    print(text(found, ledger))
    _write([each.row() for each in found], options.json)
    return 0


def _changed(method: Method) -> list[str]:
    """Return the settings of a method that are not its defaults, in words."""
    values = {f.name: (getattr(method, f.name), f.default) for f in fields(method)}
    return [f"{name}={_spoken(value)}" for name, (value, usual) in values.items() if value != usual]


def _spoken(value: Any) -> str:
    """Return a setting in words: a method by its name and what is not its default."""
    from peftlab.methods import Method

    if isinstance(value, Method):
        return f"{value.name}({', '.join(_changed(value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_spoken, value))})"
    return str(value)


def _check_place(file: Path | None) -> None:
    """Refuse a file without a folder before the work for it is done."""
    if file is not None and not file.parent.is_dir():
        raise SettingsError(
            f"The folder of {file} does not exist: make it first, so that the result has a place."
        )


def _write(rows: list[dict[str, Any]], file: Path | None) -> None:
    """Write rows as JSON, if a file was asked for."""
    if file is not None:
        file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _pretrain(options: argparse.Namespace) -> int:
    from peftlab.pretraining import pretrain

    folder = options.folder or Path(options.recipe.stem)
    done = pretrain(options.recipe, folder)
    for name, value in done.items():
        if name != "curves":  # a number for every step; the last ones were told on the way
            print(f"{name}: {value}")
    print(f"the encoder is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
