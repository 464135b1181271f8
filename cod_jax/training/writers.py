"""TensorBoard event files, the record of a run.

This uses tensorboard's own event writer. clu's writers import TensorFlow, and tensorboardX writes from a thread that
fails silently: on a full disk the trainer would wait for it forever.
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
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

# Type checkers cannot see the content of these generated modules.
_events: Any = event_pb2
_summaries: Any = summary_pb2


class TensorBoardWriter:
    """Writer of events into a folder, from a thread of its own.

    Every method raises OSError if an earlier event could not be written.

    Args:
        directory: Folder of the event files, created if missing. None drops all events, because only the first process
            of a run writes.
        first_step: First step that this run will write. TensorBoard then drops the events that an interrupted run wrote
            for this step and later ones.
    """

    def __init__(self, directory: Path | None, first_step: int = 0):
        self._writer = None if directory is None else EventFileWriter(str(directory))
        self._add(first_step, session_log=_events.SessionLog(status=_events.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one number per tag."""
        self._add(
            step, summary=_summaries.Summary(value=[{"tag": k, "simple_value": float(v)} for k, v in values.items()])
        )

    def images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> None:
        """Write one picture per tag, as PNG."""
        self._add(step, summary=_summaries.Summary(value=[{"tag": k, "image": _png(v)} for k, v in images.items()]))

    def texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write one Markdown text per tag."""
        for tag, text in texts.items():
            self._add(step, summary=text_pb(tag, [text]))

    def hyper_parameters(self, values: Mapping[str, Any]) -> None:
        """Write the settings of the run by name: numbers, booleans and text unchanged, other values as their `repr`."""
        plain = {k: v if isinstance(v, bool | int | float | str) else repr(v) for k, v in values.items()}
        self._add(0, summary=hparams_pb(plain))

    def close(self) -> None:
        """Wait until all events are written, then close the file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        if self._writer is not None:
            self._writer.add_event(_events.Event(step=step, wall_time=time.time(), **content))


def _png(image_uint8: UInt8[np.ndarray, "H W 3"]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(image_uint8).save(buffer, "PNG")
    height, width, _ = image_uint8.shape
    return {"height": height, "width": width, "colorspace": 3, "encoded_image_string": buffer.getvalue()}
