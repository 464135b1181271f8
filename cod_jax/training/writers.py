"""What a run leaves to look at: TensorBoard event files.

clu's own writers import TensorFlow, so this one class on tensorboard's writer stands in for them.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import summary_v2
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

# Generated modules, whose content type checkers cannot see.
_events: Any = event_pb2
_summaries: Any = summary_pb2


class TensorBoardWriter:
    """Writes events into a folder; the files are written by a thread of their own.

    Args:
        directory: Folder of the event files; made if needed. None: everything is dropped, for processes beside the
            first.
        first_step: The first step that this run will write. TensorBoard then forgets what an interrupted run had
            written from this step on.
    """

    def __init__(self, directory: Path | None, first_step: int = 0):
        self._writer = None if directory is None else EventFileWriter(str(directory))
        start = _events.SessionLog(status=_events.SessionLog.START)
        self._add(_events.Event(step=first_step, session_log=start))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one number per tag."""
        self._summary(step, [_summaries.Summary.Value(tag=k, simple_value=float(v)) for k, v in values.items()])

    def images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> None:
        """Write one picture per tag, as PNG."""
        self._summary(step, [_summaries.Summary.Value(tag=k, image=_image(v)) for k, v in images.items()])

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write one Markdown text per tag."""
        values = []
        for tag, text in texts.items():
            tensor = tensor_util.make_tensor_proto(np.array([text.encode()], object))
            metadata = text_metadata.create_summary_metadata(display_name=tag, description="")
            values.append(_summaries.Summary.Value(tag=tag, tensor=tensor, metadata=metadata))
        self._summary(step, values)

    def hyper_parameters(self, values: Mapping[str, Any]) -> None:
        """Write the settings of the run, names to plain values; others are written as text."""
        plain = {k: v if isinstance(v, bool | int | float | str) else repr(v) for k, v in values.items()}
        self._add(_events.Event(step=0, summary=_converted(summary_v2.hparams_pb(plain))))

    def flush(self) -> None:
        """Wait until everything is in the file.

        Raises:
            OSError: A file could not be written.
        """
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()

    def _summary(self, step: int, values: list[Any]) -> None:
        self._add(_events.Event(step=step, summary=_summaries.Summary(value=values)))

    def _add(self, event: Any) -> None:
        if self._writer is not None:
            event.wall_time = time.time()
            self._writer.add_event(event)


def _image(image_uint8: np.ndarray) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(image_uint8).save(buffer, "PNG")
    height, width, _ = image_uint8.shape
    return _summaries.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=buffer.getvalue())


def _converted(summary: Any) -> Any:
    return _summaries.Summary.FromString(summary.SerializeToString())
