"""Files at addresses of remote storage, such as gs://bucket/models/lite, read and written by way of fsspec.

Credentials are those that the libraries of a storage find by themselves.
"""

from cod_jax.storage.access import (
    StorageError,
    as_url,
    make_s3_patient,
    naming_address,
    open_address,
    retried,
    set_up_libraries,
)
from cod_jax.storage.cache import working_folder
from cod_jax.storage.folders import check_new_directory, fetch, fetch_all, local_path, move, new_directory, upload_file
from cod_jax.storage.mirror import Mirror, working_copy
from cod_jax.storage.reading import list_files, read_bytes

__all__ = [
    "Mirror",
    "StorageError",
    "as_url",
    "check_new_directory",
    "fetch",
    "fetch_all",
    "list_files",
    "local_path",
    "make_s3_patient",
    "move",
    "naming_address",
    "new_directory",
    "open_address",
    "read_bytes",
    "retried",
    "set_up_libraries",
    "upload_file",
    "working_copy",
    "working_folder",
]
