"""Branching: what a new run takes over from a checkpoint of another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoints import CheckpointStore
from trainer.config import BranchConfig, ConfigError, ModelConfig, RunConfig
from trainer.data.kept_split import read_split
from trainer.data.scan import scan_key
from trainer.messages.model_info import WeightsReport
from trainer.optim import even_out_momentum
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder


@dataclass(frozen=True)
class BranchStart:
    """A checkpoint from which a new run begins, as it was read.

    Attributes:
        branch: Which one it is.
        state: The model's whole state_dict.
        class_names: Names of the classes that its head tells apart, by index.
        config: The configuration of its run.
        optimizer_state: The optimizer's state_dict.
        split: Each image's split by its path in the data set, None if the run kept none.

    """

    branch: BranchConfig
    state: dict[str, Tensor]
    class_names: list[str]
    config: RunConfig
    optimizer_state: dict[str, Any]
    split: Mapping[str, str] | None

    def split_for(self, config: RunConfig) -> Mapping[str, str] | None:
        """Return the split for a run that asks for the same one of the same data, so that it validates alike."""
        asked = [scan_key(each.data, each.training.seed) for each in (config, self.config)]
        return self.split if asked[0] == asked[1] else None

    def sentence(self, report: WeightsReport, class_names: list[str]) -> str:
        """Say what the new run has of the checkpoint."""
        others = report.is_head_new and class_names != self.class_names
        why = f" Its classes were others: {len(self.class_names)}, and here {len(class_names)}." if others else ""
        return f"Branched from {self.branch.source}. {report.sentence}{why}"


def without_unread_weights(config: RunConfig) -> RunConfig:
    """Return the configuration of a branch without the file of weights that its parent began with.

    Nothing of it is read: the weights are the checkpoint's, and the branch is repeated from that. A path that is named
    all the same would have to be kept, and seem to be what the branch began with.
    """
    if config.branch is None or not config.model.weights_file:
        return config
    weights = ModelConfig.model_fields["weights"].default
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


def read_start(branch: BranchConfig) -> BranchStart:
    """Read the checkpoint from which a run is to branch. Nothing of its run is touched, which may be live.

    Raises:
        RunFolderError: There is no such run or checkpoint.
        CheckpointError: Its file is damaged or missing.

    """
    run_dir = Path(branch.run)
    if not (run_dir / "run.db").is_file():
        raise RunFolderError(
            f"The run to branch from is not at {run_dir}. Put it back there, or give its new place, or begin a run "
            "that is no branch."
        )
    with RunFolder(run_dir, read_only=True) as folder:
        checkpoint = CheckpointStore(folder, read_only=True).load(folder.checkpoints.find(branch.checkpoint))
        return BranchStart(
            branch=branch,
            state=checkpoint["model_state_dict"],
            class_names=list(checkpoint["class_names"]),
            config=folder.config(),
            optimizer_state=checkpoint["optimizer_state_dict"],
            split=read_split(run_dir),
        )


def take_optimizer_state(
    start: BranchStart, optimizer: torch.optim.Optimizer, name: str, report: WeightsReport
) -> None:
    """Give a new run's optimizer what that of the checkpoint knew of each parameter; its rates stay the run's own.

    Args:
        start: The checkpoint.
        optimizer: The new run's.
        name: What sort it is.
        report: How the checkpoint's weights fit the model.

    Raises:
        ConfigError: It is of another sort, or the model is another one.

    """
    theirs = start.config.optimizer.name
    if theirs != name:
        raise ConfigError(
            f"The optimizer's state of {start.branch.source} is that of {theirs}, and this run has {name}. Choose "
            f"{theirs}, or branch without the optimizer's state.",
            "optimizer.name",
        )
    if report.is_head_new:
        raise ConfigError(
            f"The optimizer's state of {start.branch.source} does not fit: the head begins anew. Branch without it, or "
            "with the same classes and the same head.",
            "branch.with_optimizer",
        )
    own = optimizer.state_dict()
    optimizer.load_state_dict({**own, "state": start.optimizer_state["state"]})
    even_out_momentum(optimizer)
