"""Writers of annotation files for other tools; `writer.SEGMENT_WRITERS` lists them."""
