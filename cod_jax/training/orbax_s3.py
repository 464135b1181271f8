"""Checkpoints in S3.

Orbax builds on TensorStore and epath, which know S3, but asks them for gs:// only. It has no setting for other storage,
so five of its private functions are told here that s3:// is of the same kind: storage without renaming.
"""

import functools
import os
import posixpath
import re
from pathlib import PurePath
from typing import Any
from urllib import parse

from cod_jax import storage
from cod_jax.errors import UserError

PREFIX = "s3://"
_ANY_S3 = re.compile(r"^s3:/+")


@functools.cache
def set_up() -> None:
    """Let Orbax read and write checkpoints at addresses of S3; a second call does nothing.

    Raises:
        UserError: This version of Orbax is made in another way.
    """
    try:
        from orbax.checkpoint._src.path import gcs_utils
        from orbax.checkpoint._src.serialization import tensorstore_utils

        is_gcs_path, get_kvstore, rmtree = gcs_utils.is_gcs_path, gcs_utils.get_kvstore_for_gcs, gcs_utils.rmtree
        use_driver, normalize = tensorstore_utils._use_gcs_driver, tensorstore_utils._normalize_path
    except (ImportError, AttributeError) as error:
        raise UserError(
            "checkpoints in S3 need orbax-checkpoint 0.12.8, got another version, which has other functions "
            f"({error}); install that one, or mount the storage as a folder"
        ) from error

    storage.make_s3_patient()

    def remove(path: Any, *, missing_ok: bool = False) -> None:
        if _is_s3(path):
            path.rmtree(missing_ok=missing_ok)
        else:
            rmtree(path, missing_ok=missing_ok)

    gcs_utils.is_gcs_path = lambda path: _is_s3(path) or is_gcs_path(path)
    gcs_utils.get_kvstore_for_gcs = lambda path: _kvstore(path) if _is_s3(path) else get_kvstore(path)
    gcs_utils.rmtree = remove
    tensorstore_utils._use_gcs_driver = lambda path: _is_s3(path) or use_driver(path)
    tensorstore_utils._normalize_path = lambda path: _normalized(path) if _is_s3(path) else normalize(path)


def _is_s3(path: str | PurePath) -> bool:
    return _ANY_S3.match(str(path)) is not None


def _normalized(path: str) -> str:
    return PREFIX + posixpath.normpath(_ANY_S3.sub("", path))


def _kvstore(path: str) -> dict[str, Any]:
    """Return TensorStore's description of a place; it does not read the variable for servers of other makers."""
    place = parse.urlparse(_normalized(path))
    spec: dict[str, Any] = {"driver": "s3", "bucket": place.netloc, "path": f"{place.path.strip('/')}/"}
    if "AWS_ACCESS_KEY_ID" in os.environ:
        # Otherwise it prints which other places have no credentials.
        spec["aws_credentials"] = {"type": "environment"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    # Without them it asks S3 for the region of the bucket.
    return {**spec, "endpoint": endpoint, "aws_region": region or "us-east-1"} if endpoint else spec
