"""A worker that notes the images of each step, and what it is given of them to the bit: ``-m`` it as the worker."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

VARIABLE = "THAW_TEST_SAMPLES"
"""Names the file to which a line is added for each batch that is trained on."""


def main() -> int:
    import torch

    from trainer.feature_batches import ModelBatch
    from trainer.feature_cache import FeatureCache
    from trainer.worker import main as serve

    train_batches = FeatureCache.train_batches

    def noted(self: FeatureCache, epoch: int, start_batch: int = 0) -> Iterator[ModelBatch]:
        batches = train_batches(self, epoch, start_batch)
        for keys, batch in zip(self._run.data.sampler.batches(epoch, start_batch), batches, strict=True):
            inputs = batch.inputs()
            digest = hashlib.sha256(b"".join(each.view(-1).view(torch.uint8).numpy() for each in inputs))
            digest.update(batch.target.numpy().tobytes())
            indexes = " ".join(str(index) for _, index in keys)
            with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
                file.write(f"{epoch} {start_batch}: {indexes} {digest.hexdigest()}\n")
            start_batch += 1
            yield replace(batch, inputs=partial(tuple, inputs))

    FeatureCache.train_batches = noted
    return serve()


if __name__ == "__main__":
    sys.exit(main())
