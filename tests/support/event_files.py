"""Reads TensorBoard's event files, independently of what writes them."""

import pathlib
import struct

from tensorboardX.proto import event_pb2


def scalars(folder: pathlib.Path) -> list[tuple[str, int, float]]:
  """Returns name, step and value of all scalars, in the order written."""
  found = []
  for path in sorted(folder.glob("events.out.tfevents.*")):
    data, place = path.read_bytes(), 0
    while place < len(data):
      # Each record: length, its checksum, the event, its checksum.
      (length,) = struct.unpack_from("<Q", data, place)
      event = event_pb2.Event.FromString(data[place + 12 : place + 12 + length])
      found += [
        (one.tag, event.step, one.simple_value) for one in event.summary.value
      ]
      place += 16 + length
  return found
