"""Open a store in any form: Zarr, an HDF5 export, or a folder of npz snippets."""

from __future__ import annotations

from pathlib import Path

from actionprep.datasets.store.zarr_store import Store, without_file_scheme
from actionprep.errors import UserError, explained_read_errors, name_list


def open_store(store: Store | str | Path) -> Store:
    """Open a store.

    Args:
        store: A Zarr store (folder or URL), an HDF5 file of `actionprep export hdf5`, a folder of npz snippets, or a folder
            with one such folder in it. An opened store is returned as it is.

    Raises:
        UserError: If none of these is there.
        InputError: If an HDF5 file or an npz file is damaged.
    """
    if isinstance(store, Store):
        return store
    url = without_file_scheme(str(store))
    path = Path(url)
    if "://" in url or "::" in url or (path / "zarr.json").exists():
        return open_zarr_store(url)
    if path.is_file() or path.suffix.lower() in (".h5", ".hdf5"):
        return _open_file(path)
    from actionprep.datasets.store.npz_store import NpzStore, is_npz_folder

    if is_npz_folder(path):
        return NpzStore(path)
    inside = [] if not path.is_dir() else [child for child in sorted(path.iterdir()) if _may_be_npz_folder(child)]
    if len(inside) > 1:
        listed = name_list([folder.name for folder in inside])
        raise UserError(f"{path} has {len(inside)} folders of npz snippets: {listed}. Name one of them.")
    return NpzStore(inside[0]) if inside else Store(store)


def open_zarr_store(url: str | Path, *, create: bool = False, check_root: bool = True) -> Store:
    """Open a Zarr store on a disk or behind a URL; see `Store` for the arguments."""
    if str(url).startswith("s3://"):
        from actionprep.datasets.store.object_store import ObjectStore

        return ObjectStore(url, create=create, check_root=check_root)
    return Store(url, create=create, check_root=check_root)


def _may_be_npz_folder(folder: Path) -> bool:
    from actionprep.datasets.store.npz_store import is_npz_folder

    return not folder.name.startswith(".") and folder.is_dir() and is_npz_folder(folder)


def _open_file(path: Path) -> Store:
    from actionprep.datasets.store.hdf5_store import SIGNATURE, Hdf5Store

    if path.is_file():
        with explained_read_errors(path), open(path, "rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                raise UserError(
                    f"{path} is not an HDF5 file. A store is a Zarr folder, an HDF5 file of 'actionprep export hdf5', or a "
                    "folder of npz snippets."
                )
    return Hdf5Store(path)
