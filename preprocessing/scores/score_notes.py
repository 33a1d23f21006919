"""Reads the notes of a score by music21."""

import dataclasses
import pathlib
from typing import Any
import warnings


class Unreadable(Exception):
  """A score cannot be parsed, or has no notes; the text says why."""


@dataclasses.dataclass(frozen=True)
class Note:
  """A note: begin and length in seconds, and its MIDI pitch."""

  begin_s: float
  length_s: float
  pitch: int


@dataclasses.dataclass(frozen=True)
class Notes:
  """The notes of a score.

  Attributes:
    parts: the notes of each part that has some.
    with_repeats: whether its repeats are played; False where they are wrong.
  """

  parts: list[list[Note]]
  with_repeats: bool = True


def read(path: pathlib.Path) -> Notes:
  """Reads a score.

  Raises:
    Unreadable: it cannot be parsed, or has no notes.
  """
  from music21 import converter

  try:
    with warnings.catch_warnings():  # Of bars that are too long, and such.
      warnings.simplefilter("ignore")
      score = converter.parse(path, forceSource=True)
    if "Opus" in score.classes:
      score = score.scores[0]
    score, with_repeats = _with_repeats(score)
    clock = _Clock(score)
    parts = [_notes(part, clock) for part in list(score.parts) or [score]]
  # music21 raises errors of many kinds, and one score must not end the work.
  except Exception as error:  # noqa: BLE001
    said = " ".join(str(error).split())
    raise Unreadable(f"{type(error).__name__}: {said[:200]}") from error
  parts = [part for part in parts if part]
  if not parts:
    raise Unreadable("it has no notes")
  return Notes(parts, with_repeats)


def _with_repeats(score: Any) -> tuple[Any, bool]:
  try:
    return score.expandRepeats(), True
  except Exception:  # noqa: BLE001
    return score, False


class _Clock:
  """Turns quarters into seconds, by the score's marks of tempo."""

  def __init__(self, score: Any):
    self._spans, now_s = [], 0.0
    for begin, end, mark in score.metronomeMarkBoundaries():
      quarter_s = 60.0 / (mark.getQuarterBPM() or 120.0)
      self._spans.append((begin, now_s, quarter_s))
      now_s += (end - begin) * quarter_s

  def seconds(self, quarters: float) -> float:
    spans = (span for span in reversed(self._spans) if span[0] <= quarters)
    begin, begin_s, quarter_s = next(spans, self._spans[0])
    return begin_s + (quarters - begin) * quarter_s


def _notes(part: Any, clock: _Clock) -> list[Note]:
  """Returns the notes of a part, tied ones as one."""
  held: dict[int, tuple[float, float]] = {}  # Pitch -> begin and end.
  found: list[tuple[float, float, int]] = []
  for one in part.flatten().notes:
    begin = float(one.offset)
    end = begin + float(one.quarterLength)
    if end <= begin or "Harmony" in one.classes or not hasattr(one, "pitches"):
      continue  # Grace notes, chord symbols, and what has no pitch.
    for single in getattr(one, "notes", [one]):
      pitch, tie = int(single.pitch.midi), single.tie or one.tie
      since = begin
      if tie and tie.type != "start" and pitch in held:
        since = held.pop(pitch)[0]
      if tie and tie.type in ("start", "continue"):
        held[pitch] = (since, end)
      else:
        found.append((since, end, pitch))
  found += [(begin, end, pitch) for pitch, (begin, end) in held.items()]
  return [
    Note(clock.seconds(begin), clock.seconds(end) - clock.seconds(begin), pitch)
    for begin, end, pitch in sorted(found)
  ]
