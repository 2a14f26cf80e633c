"""Mask sources, one file each."""

from actionprep.pipeline.mask_sources.source import MASK_SOURCES, MaskBlock, MaskSource

__all__ = ["MASK_SOURCES", "MaskBlock", "MaskSource"]
