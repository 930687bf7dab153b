"""What a run will need, in the form's words: the time with cached features and without, and what would save some."""

from __future__ import annotations

import pytest

from app.viewmodels.run_need import RunNeed
from trainer.config import DataConfig, RunConfig
from trainer.messages.run_info import RunEstimate

pytestmark = pytest.mark.usefixtures("qapp")


def need_text(config: RunConfig | None = None, **values: object) -> str:
    """Return what the form says of an estimate."""
    known = {
        "step_ms": 300.0, "seconds_per_epoch": 31.0, "num_epochs": 20, "memory_bytes": 900_000_000, "device": "cpu",
        "checkpoint_bytes": 1, "disk_bytes": 1, "free_bytes": 10**10, "kept_bytes": 1, "decoded_bytes": 1,
        "budget_bytes": 1, "cached_seconds_per_epoch": 0.4, "cached_layers": "conv1 … layer4", "cached_views": 4,
        "cached_bytes": 8_000_000, "cached_saved_share": 0.99994,
    }  # fmt: skip
    need = RunNeed()
    need.show_estimate(RunEstimate.model_validate({**known, **values}), config)
    return need.text


def test_the_need_of_a_run_that_caches_features_says_from_when_on_it_is_faster_and_by_what() -> None:
    assert need_text(RunConfig()).startswith(
        "About 0:31 an epoch, from epoch 5 on 0.4 s, as features of conv1 … layer4 are cached (8.0 MB); 2:10 in all · "
    )
    assert need_text(cached_views=1, cached_seconds_per_epoch=12.0).startswith(
        "About 0:31 an epoch, from epoch 2 on 0:12"
    )
    # Every view is computed in an epoch of its own: there is no epoch that reads them.
    few = need_text(RunConfig(), num_epochs=4)
    assert few.startswith(
        "About 0:31 an epoch, 2:04 in all · with 4 views each comes once at most, so that fewer would save time · "
    )
    assert "fewer" not in need_text(RunConfig(), num_epochs=1, cached_views=1)


def test_the_need_of_a_run_whose_plan_unfreezes_does_not_pass_for_the_whole() -> None:
    assert "; 2:10 in all, more once the plan unfreezes · " in need_text(unfreezes=True)
    assert "About 0:31 an epoch, 2:04 in all, more once the plan unfreezes · " in need_text(
        unfreezes=True, num_epochs=4
    )


def test_the_need_of_a_run_without_a_cache_says_why_and_what_fixed_views_would_save() -> None:
    reason = "Each epoch has a new view of each training image, so that only validation's features are kept."
    without = {"cached_views": 0, "not_cached": reason}
    new_views = RunConfig(data=DataConfig(views=0))
    offered = "fixed views (now 0) would save later epochs 99.9 % of the forward computing"
    text = need_text(new_views, **without)
    assert text.startswith(f"About 0:31 an epoch, 10:20 in all · {offered} · 900 MB of memory")
    assert text.endswith(f" · {reason}")
    mixed = RunConfig(data=DataConfig(views=0, mixing="mixup"))
    plain = RunConfig(data=DataConfig(views=0, augmentation="none"))
    assert not any("fixed views" in need_text(config, **without) for config in (mixed, plain))
    assert "fixed views" not in need_text(new_views, cached_views=0, cached_layers="", not_cached="Nothing is frozen.")
