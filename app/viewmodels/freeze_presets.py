"""The freeze sets that have a name, and what they freeze in a model."""

from __future__ import annotations

from enum import StrEnum

from app.viewmodels.layer_rows import BACKBONE_ID, HEAD_ID, LayerRows


class Preset(StrEnum):
    """A freeze set that has a name."""

    HEAD_ONLY = "head only"
    LAST_STAGE = "last stage + head"
    NORMS = "norm layers + head"
    BIASES = "biases + head"
    """BitFit (Ben Zaken et al. 2021, arXiv 2106.10199)."""
    EVERYTHING = "everything"
    CUSTOM = "custom"


def preset_sets(rows: LayerRows) -> dict[Preset, set[str]]:
    """Return the atoms that each preset freezes; a custom set is none of them."""
    backbone, head = set(rows[BACKBONE_ID].atoms), set(rows[HEAD_ID].atoms)
    return {
        Preset.HEAD_ONLY: backbone,
        Preset.LAST_STAGE: backbone - rows.last_stage() - head,
        Preset.NORMS: backbone - rows.norm_atoms(),
        Preset.BIASES: backbone - rows.biases,
        Preset.EVERYTHING: set(),
    }
