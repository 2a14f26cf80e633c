"""The Zarr store on disk: items, reader, writer, digests, lock."""
