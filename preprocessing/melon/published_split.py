"""Reads the published split and validation pairs, without executing a pickle.

The published files are pickles of lists, tuples, integers and numpy integers. A
pickle names functions to call. The unpickler here refuses every name except
those that numpy's integers need, and replaces these by functions of this
module.
"""

from collections.abc import Sequence
import io
import pathlib
import pickle
import pickletools
from typing import Any
import warnings

import numpy as np

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import song_store

_SHOWN_CHARS = 60
_SHOWN_IDS = 5
_MEMO_WRITERS = ("PUT", "BINPUT", "LONG_BINPUT")


class _IntegerType:
  """Stands for a numpy dtype; integers only."""

  def __init__(self, name: Any, *_: Any):
    kinds = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
    if name not in kinds:
      raise pickle.UnpicklingError(f"numpy type {str(name)[:_SHOWN_CHARS]!r}")
    self._size, self._signed = int(name[1]), name[0] == "i"
    self._order = "<"

  def __setstate__(self, state: Any) -> None:
    self._order = state[1]
    if self._order not in ("<", ">", "|", "="):
      raise pickle.UnpicklingError("a numpy byte order that does not exist")

  def read(self, data: Any) -> int:
    """Returns the integer that some bytes are."""
    if not isinstance(data, bytes) or len(data) != self._size:
      raise pickle.UnpicklingError("a numpy integer of the wrong size")
    order = "big" if self._order == ">" else "little"
    return int.from_bytes(data, order, signed=self._signed)


def _scalar(dtype: Any, data: Any) -> int:
  """Stands for numpy's function that makes a scalar."""
  if not isinstance(dtype, _IntegerType):
    raise pickle.UnpicklingError("a numpy scalar that is no integer")
  return dtype.read(data)


def _encode(text: Any, encoding: Any) -> bytes:
  """Stands for the function with which protocol 2 writes bytes."""
  if not isinstance(text, str) or encoding != "latin1":
    raise pickle.UnpicklingError("bytes that are not written as bytes are")
  return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
  """Admits lists, tuples, integers and numpy integers."""

  _KNOWN = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _IntegerType,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
  }

  def find_class(self, module: str, name: str) -> Any:
    """Returns the stand-in of a name, or refuses the name."""
    found = self._KNOWN.get((module, name))
    if found is None:
      raise pickle.UnpicklingError(
        f"it asks for {module[:_SHOWN_CHARS]}.{name[:_SHOWN_CHARS]}, and only "
        "lists, tuples, integers and numpy integers are admitted"
      )
    return found


def _check_memo(content: bytes) -> None:
  """Refuses a place in the memo beyond the length of the pickle.

  The unpickler makes room for all places up to the one that is named, so that
  six bytes could ask for 64 GB.
  """
  with warnings.catch_warnings(action="ignore"):  # Of odd escapes in names.
    for opcode, place, _ in pickletools.genops(content):
      if opcode.name in _MEMO_WRITERS and not 0 <= place <= len(content):
        raise pickle.UnpicklingError(
          f"it stores an object at place {place} of the memo, and has only "
          f"{len(content)} bytes"
        )


def _load(path: pathlib.Path, option: str) -> Any:
  try:
    content = path.read_bytes()
    _check_memo(content)
    return _Unpickler(io.BytesIO(content)).load()
  # Anything may come out of a pickle that is damaged or made to do harm.
  except Exception as error:
    text = " ".join(str(error).split())[: 4 * _SHOWN_CHARS]
    raise errors.InputError(
      f"{path} ({option}) cannot be read: {text or type(error).__name__}. "
      "Nothing in it was executed. Give the published file, unchanged."
    ) from error


def _as_ids(values: Any, path: pathlib.Path, what: str) -> np.ndarray:
  """Returns a sequence of song ids as int64 [songs], or refuses it."""
  is_right = isinstance(values, (list, tuple)) and all(
    type(one) is int and 0 <= one <= song_store.MAX_SONG_ID for one in values
  )
  if not is_right:
    raise errors.InputError(
      f"{path}: {what} must be a list of song ids, integers from 0 to "
      f"{song_store.MAX_SONG_ID}; it is not. Give the published file, "
      "unchanged."
    )
  return np.array(values, np.int64)


def read_split(path: pathlib.Path) -> list[np.ndarray]:
  """Reads split_ids.pkl: ids of the training, validation and test songs.

  Returns:
    Three arrays, int64 [songs], without repetition.

  Raises:
    InputError: the file is absent, holds anything else than three lists of
      integers, or names a song twice.
  """
  loaded = _load(path, "--split_from")
  if not isinstance(loaded, (list, tuple)) or len(loaded) != 3:
    raise errors.InputError(
      f"{path} (--split_from) must hold three lists of song ids, of training, "
      "validation and test; it does not. Give the published split_ids.pkl."
    )
  parts = [
    _as_ids(part, path, f"the list of {name} songs")
    for part, name in zip(loaded, catalogues.SPLIT_NAMES, strict=True)
  ]
  ids, counts = np.unique(np.concatenate(parts), return_counts=True)
  if (counts > 1).any():
    shown = ", ".join(map(str, ids[counts > 1][:_SHOWN_IDS].tolist()))
    raise errors.InputError(
      f"{path} (--split_from) names {int((counts > 1).sum())} songs more than "
      f"once (first: {shown}); a song belongs to one part."
    )
  return parts


def read_pairs(path: pathlib.Path) -> np.ndarray:
  """Reads val_pairs.pkl: fixed pairs of validation songs, int64 [pairs, 2].

  Raises:
    InputError: the file is absent or is not a list of pairs of integers.
  """
  loaded = _load(path, "--val_pairs_from")
  if not isinstance(loaded, (list, tuple)) or not all(
    isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in loaded
  ):
    raise errors.InputError(
      f"{path} (--val_pairs_from) must hold a list of pairs of song ids; it "
      "does not. Give the published val_pairs.pkl."
    )
  flat = [one for pair in loaded for one in pair]
  return _as_ids(flat, path, "each pair").reshape(-1, 2)


def assign(
  song_ids: np.ndarray, parts: Sequence[np.ndarray], path: pathlib.Path
) -> tuple[np.ndarray, dict[str, Any]]:
  """Restricts the result of `read_split` to the songs of the song store.

  Returns:
    The part of each of `song_ids` (ascending), NO_SPLIT where the file names
    none, int8 [songs], and counts of what the store has of the file.

  Raises:
    InputError: the store has no song of a part.
  """
  split = np.full(len(song_ids), catalogues.NO_SPLIT, np.int8)
  counts: dict[str, Any] = {"file": path.name}
  for number, (name, part) in enumerate(
    zip(catalogues.SPLIT_NAMES, parts, strict=True)
  ):
    rows = catalogues.find_rows(song_ids, part)
    split[rows[rows >= 0]] = number
    absent = int((rows < 0).sum())
    counts[name] = {"listed": len(part), "without_audio": absent}
    if not (rows >= 0).any():
      raise errors.InputError(
        f"{path} (--split_from) lists {len(part)} {name} songs and the song "
        f"store has none of them: it is the split of another data set."
      )
  counts["in_no_part"] = int((split == catalogues.NO_SPLIT).sum())
  return split, counts


def validation_rows(
  song_ids: np.ndarray, split: np.ndarray, pairs: np.ndarray, path: pathlib.Path
) -> tuple[np.ndarray, dict[str, Any]]:
  """Restricts the result of `read_pairs` to pairs whose songs are both there.

  Returns:
    Rows of `song_ids` (ascending), int32 [kept, 2], in the order of the file,
    and counts.

  Raises:
    InputError: a song is not a validation song by `split`, or no pair is left.
  """
  rows = catalogues.find_rows(song_ids, pairs)
  outside = (rows >= 0) & (split[rows] != catalogues.VALIDATION)
  if outside.any():
    shown = ", ".join(map(str, pairs[outside][:_SHOWN_IDS].tolist()))
    raise errors.InputError(
      f"{path} (--val_pairs_from) pairs {int(outside.sum())} songs that are "
      f"not validation songs of this split (first: {shown}). Give the split "
      "that belongs to these pairs with --split_from."
    )
  kept = (rows >= 0).all(axis=1)
  if not kept.any():
    raise errors.InputError(
      f"{path} (--val_pairs_from) has {len(pairs)} pairs and the song store "
      "has both songs of none of them."
    )
  counts = {"listed": len(pairs), "without_audio": int((~kept).sum())}
  return rows[kept].astype(np.int32), {"file": path.name, **counts}
