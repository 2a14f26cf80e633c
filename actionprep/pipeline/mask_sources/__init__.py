"""Mask sources: each one file, each registered by name."""

from actionprep.pipeline.mask_sources import files, motion
from actionprep.pipeline.mask_sources.source import MASK_SOURCES, MaskBlock, MaskSource, find_mask_source, mask_source

__all__ = ["MASK_SOURCES", "MaskBlock", "MaskSource", "files", "find_mask_source", "mask_source", "motion"]
