"""Commonsense: which of a few answers goes with a premise. Train on Social IQa or COPA.

Every answer gets one score, so a head that was trained on three answers also ranks two.
"""

from __future__ import annotations

from typing import Any

from peftlab.tasks.catalog.changes import from_zero
from peftlab.tasks.catalog.dataset import DataSet
from peftlab.tasks.splits import Cut

#: COPA asks for the cause or the effect of the premise; this asks it in words, in English.
COPA: dict[str, Any] = {
    "ask": "question",
    "prompts": {"cause": "What was the cause?", "effect": "What happened as a result?"},
}

ROWS = (
    DataSet(
        name="social-iqa",  # Sap et al., 2019; the test labels are hidden
        kind="choice",
        options={
            "premise": "context",
            "ask": "question",
            "choices": ("answerA", "answerB", "answerC"),
        },
        splits={"train": "train", "test": "validation"},
        folder="social_i_qa",
        hub="lighteval/siqa",
        cut=Cut(group="context"),
        change=from_zero,
        note="allenai/social_i_qa itself has a loading script, which datasets 4 does not run; this "
        "copy has the same rows.",
    ),
    DataSet(
        name="copa",  # Roemmele et al., 2011, in SuperGLUE; the test labels are hidden
        kind="choice",
        options=COPA,
        splits={"train": "train", "test": "validation"},
        folder="copa",
        hub="aps/super_glue",
        config="copa",
        cut=Cut(),
    ),
    DataSet(
        name="xcopa",  # Ponti et al., 2020
        kind="choice",
        options=COPA,
        folder="xcopa",
        hub="cambridgeltl/xcopa",
        config="{config}",
        configs=("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh"),
        language="{config}",
        splits={"test": "test"},
        trained_in=(),
        train_on="social-iqa or copa",
    ),
)
