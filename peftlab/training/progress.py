"""A progress bar whose estimate counts work, not steps.

A training step costs about three times the forward pass of its tokens, an evaluation one; with
both in one unit the estimate does not jump when an evaluation comes.
"""

from __future__ import annotations

import os
import sys
from typing import Any


class ProgressBar:
    """Draws the share of a run's work that is done, the last loss and the last score.

    Args:
        steps: Optimiser steps of the run.
        evaluations: Evaluations of the run.
        step_work: Work of a step, in forward tokens.
        evaluation_work: Work of an evaluation, in forward tokens.
        done: Steps that an earlier attempt has done.
        label: Stands before the bar.
        show: Whether to draw; by default in a terminal, and in full mode in a notebook.
    """

    def __init__(
        self,
        *,
        steps: int,
        evaluations: int,
        step_work: float,
        evaluation_work: float,
        done: int,
        label: str,
        show: bool | None,
    ) -> None:
        from tqdm.auto import tqdm

        if show is None:
            show = sys.stderr.isatty() or os.environ.get("PEFTLAB_MODE") == "full"
        self.step_work, self.evaluation_work = step_work, evaluation_work
        done_evaluations = evaluations * done // max(1, steps)
        self.bar: Any = tqdm(
            total=round(steps * step_work + evaluations * evaluation_work),
            initial=round(done * step_work + done_evaluations * evaluation_work),
            desc=label,
            disable=not show,
            smoothing=0,  # the mean over the whole run: the estimate of one long run is steady
            bar_format="{desc} {percentage:3.0f} %|{bar}| {elapsed} + {remaining} {postfix}",
        )

    def step(self) -> None:
        """Count an optimiser step."""
        self.bar.update(self.step_work)

    def evaluation(self, metrics: dict[str, float], losses: list[float]) -> None:
        """Count an evaluation and show its scores."""
        self.bar.update(self.evaluation_work)
        last = losses[-20:]
        self.bar.set_postfix(
            {"loss": f"{sum(last) / max(1, len(last)):.3f}"}
            | {name: f"{value:.3f}" for name, value in metrics.items()}
        )

    def close(self) -> None:
        """End the bar; drawing over it is over."""
        self.bar.close()
