"""From a score to the action it asks for; one rule for the report, the server and df."""

from typing import Literal

from fp_contracts.bundle import PPM, Thresholds

ScoreAction = Literal["ALLOW", "STEP_UP", "REVIEW", "BLOCK"]


def action_of(score: float, thresholds: Thresholds) -> ScoreAction:
    """The strongest action whose threshold the score reaches; ALLOW when it reaches none."""
    scaled = score * PPM
    steps: tuple[tuple[int | None, ScoreAction], ...] = (
        (thresholds.block_ppm, "BLOCK"),
        (thresholds.review_ppm, "REVIEW"),
        (thresholds.step_up_ppm, "STEP_UP"),
    )
    for threshold, action in steps:
        if threshold is not None and scaled >= threshold:
            return action
    return "ALLOW"


def score_text(score: float) -> str:
    """A score as text that reads back to the same bits: how it stands in records and reports."""
    return repr(float(score))
