"""The metrics of validation by which the best checkpoint may be told: where each is found, and which a task reports."""

from __future__ import annotations

from trainer.config import METRICS, ConfigError, Metric, RunConfig

TOP = 5
"""Top-5 accuracy is reported of more classes than that."""

METRIC_TAGS: dict[Metric, str] = {
    "loss": "Loss/validation",
    "accuracy": "Accuracy/validation",
    "top5_accuracy": "Top-5 accuracy/validation",
    "f1": "F1/validation",
    "auroc": "AUROC/validation",
    "mean_ap": "Mean AP/validation",
}
"""The tag of each. All but the loss are the higher the better."""


def reported_metrics(task: str, num_classes: int) -> list[Metric]:
    """Return the metrics that a run of a task reports; one may lack in an epoch that leaves it undefined."""
    left_out: set[Metric] = set()
    if task != "multi_class" or num_classes <= TOP:
        left_out.add("top5_accuracy")
    if task != "multi_label":
        left_out.add("mean_ap")
    return [metric for metric in METRICS if metric not in left_out]


def check_best_metric(config: RunConfig, num_classes: int) -> None:
    """Refuse to tell the best checkpoint by what the run does not report.

    Raises:
        ConfigError: Names the field, and what to choose instead.

    """
    chosen, reported = config.checkpoints.best_metric, reported_metrics(config.data.task, num_classes)
    if chosen == "auto" or chosen in reported:
        return
    raise ConfigError(
        f"A run of the task {config.data.task} with {num_classes:,} classes does not report {chosen}, so that its best "
        f"checkpoint cannot be told by that. Choose auto, {', '.join(reported[:-1])} or {reported[-1]}.",
        "checkpoints.best_metric",
    )
