"""Metrics as tables show them: what they are called, which direction is better, percent or plain."""

from dataclasses import dataclass

RATES = {
    "accuracy": "accuracy",
    "chance": "chance",
    "top5": "top-5 accuracy",
    "unweighted_recall": "unweighted recall",
    "unweighted_accuracy": "unweighted accuracy",
    "frame_accuracy": "frame accuracy",
    "phone_accuracy": "phone accuracy",
    "f1": "F1",
    "eer": "EER",
    "wer": "WER",
    "cer": "CER",
    "per": "PER",
}
"""Metrics that are fractions in metrics.json and percentages in a table, and their names there."""
NAMES = {"min_dcf": "minDCF", "mindcf": "minDCF", "minDCF": "minDCF", "bleu": "BLEU", "cider": "CIDEr"}
MODES = ("max", "min")


@dataclass(frozen=True)
class Metric:
    """The metric by which a task's checkpoints are chosen."""

    key: str
    """In metrics.json."""
    mode: str
    """max or min."""

    @property
    def title(self) -> str:
        arrow = {"max": "↑", "min": "↓"}[self.mode]
        return f"{name_of(self.key)}{' %' if self.key in RATES else ''} {arrow}"

    def better(self, one: float, other: float) -> bool:
        """Whether the first value is the better one; NaN is worse than any number."""
        if one != one or other != other:
            return one == one and other != other
        return one > other if self.mode == "max" else one < other


def name_of(key: str) -> str:
    return RATES.get(key) or NAMES.get(key) or key.replace("_", " ")


def scaled(key: str, value: float) -> float:
    """A value as the table shows it."""
    return 100 * value if key in RATES else value


def formatted(key: str, mean: float, deviation: float | None = None) -> str:
    """ "43.21 ± 1.05": in percent where the metric is a rate; a count, which is an int, as it is."""
    if isinstance(mean, int) and key not in RATES and deviation is None:
        return str(mean)
    digits = 2 if key in RATES else 4
    text = f"{scaled(key, mean):.{digits}f}"
    return text if deviation is None else f"{text} ± {scaled(key, deviation):.{digits}f}"
