"""Sharing a checkpoint: as a file of a known format, or as a bundle that needs no Thaw."""
