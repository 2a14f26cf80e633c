"""Writers of annotation files for other tools; `index.SEGMENT_WRITERS` lists them."""
