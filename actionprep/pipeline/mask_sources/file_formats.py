"""Forms of mask files, for lists; `actionprep.pipeline.mask_sources.files` reads them."""

from __future__ import annotations

MASK_FILE_FORMATS = (
    ("png", "a folder with one PNG per frame: ids, DAVIS palettes, DEVA with json", "masks/{recording}/{view}"),
    ("array", "a folder with one npz or npy per frame, or one array (T, H, W)", "masks/{recording}/{view}.npz"),
    ("video", "a mask video: bright pixels are foreground", "masks/{recording}/{view}.mp4"),
    ("constant", "one PNG for all frames", "masks/{view}.png"),
    ("rle-json", "SAM 2, SA-V or COCO run-length encoding (RLE) in json", "masks/{recording}/{view}.json"),
    ("cvat", "CVAT for images or for video 1.1 with masks or polygons", "masks/{recording}/{view}.xml"),
)
"""Name, description and an example of `masks.files` for each form."""
