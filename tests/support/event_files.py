"""Reads the files of trackers, independently of what writes them."""

from collections.abc import Iterator
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


_WANDB_HEADER, _BLOCK = 7, 32_768  # Bytes; blocks count the header.


def wandb_records(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the records of an offline run of wandb, a log as LevelDB has it."""
  data, place, parts = path.read_bytes(), _WANDB_HEADER, b""
  while place < len(data):
    if _BLOCK - place % _BLOCK < 7:  # No record begins in so little room.
      place += _BLOCK - place % _BLOCK
      continue
    # Each part: its checksum, its length, whether it is whole, first or last.
    _, length, kind = struct.unpack_from("<IHB", data, place)
    parts += data[place + 7 : place + 7 + length]
    place += 7 + length
    if kind in (1, 4):
      yield parts
      parts = b""
