"""Draws instruments and tempo for a score, and writes it as a MIDI file."""

from collections.abc import Sequence
import dataclasses
import random

from preprocessing.scores.score_notes import Note

# Families of General MIDI: program, lowest and highest pitch.
_FAMILIES = {
  "strings": ((40, 55, 100), (41, 48, 88), (42, 36, 76), (43, 28, 60)),
  "string ensemble": ((48, 28, 96), (49, 28, 96)),
  "choir": ((52, 36, 84), (53, 36, 84)),
  "woodwinds": ((73, 60, 96), (68, 58, 91), (71, 50, 91), (70, 34, 72)),
  "recorders": ((74, 55, 96), (72, 74, 108), (75, 48, 96)),
  "brass": ((56, 54, 84), (60, 41, 77), (57, 40, 72), (58, 28, 58)),
  "saxophones": ((64, 56, 87), (65, 49, 80), (66, 44, 75), (67, 36, 69)),
  "piano": ((0, 21, 108),),
  "harpsichord": ((6, 29, 89),),
  "organ": ((19, 36, 96), (20, 36, 96)),
  "guitar": ((24, 40, 83), (25, 40, 83)),
  "harp": ((46, 24, 103),),
  "mallets": ((11, 53, 89), (12, 45, 96)),
  "accordion": ((21, 41, 89),),
}
_PIANO = 0
_TEMPI = 0.85, 1.2
_TICKS_PER_QUARTER = 500  # At 120 quarters a minute, a tick is 1 ms.
_DRUMS = 9


@dataclasses.dataclass(frozen=True)
class Playing:
  """How a score is played.

  Attributes:
    family: the instruments' family.
    programs: the General MIDI program of each part.
    tempo: how much faster than written.
    velocity: how hard the notes are struck, 1 to 127.
  """

  family: str
  programs: list[int]
  tempo: float
  velocity: int


def draw(parts: Sequence[Sequence[Note]], seed: str) -> Playing:
  """Draws instruments that can play each part, a tempo and a velocity."""
  generator = random.Random(seed)
  family = generator.choice(sorted(_FAMILIES))
  programs = []
  for part in parts:
    low, high = min(n.pitch for n in part), max(n.pitch for n in part)
    able = [
      program
      for program, lowest, highest in _FAMILIES[family]
      if lowest <= low and high <= highest
    ]
    programs.append(generator.choice(able) if able else _PIANO)
  tempo = round(generator.uniform(*_TEMPI), 3)
  return Playing(family, programs, tempo, generator.randint(64, 104))


def _length(value: int) -> bytes:
  """Returns a number as MIDI files have it: seven bits a byte."""
  digits = [value & 0x7F]
  while value := value >> 7:
    digits.append(0x80 | value & 0x7F)
  return bytes(reversed(digits))


def midi(parts: Sequence[Sequence[Note]], playing: Playing) -> bytes:
  """Returns a MIDI file, of one track, in which a tick is 1 ms."""
  events = []  # Time, order at that time, message.
  for number, (part, program) in enumerate(
    zip(parts, playing.programs, strict=True)
  ):
    channel = number % 15
    channel += channel >= _DRUMS
    events.append((0, 0, bytes([0xC0 | channel, program])))
    for note in part:
      begin = round(1000 * note.begin_s / playing.tempo)
      length = max(1, round(1000 * note.length_s / playing.tempo))
      on = bytes([0x90 | channel, note.pitch, playing.velocity])
      off = bytes([0x80 | channel, note.pitch, 0])
      events += [(begin, 2, on), (begin + length, 1, off)]
  track, now = b"", 0
  for time, _, message in sorted(events):
    track += _length(time - now) + message
    now = time
  track += _length(0) + b"\xff\x2f\x00"
  head = b"MThd" + (6).to_bytes(4) + (0).to_bytes(2) + (1).to_bytes(2)
  head += _TICKS_PER_QUARTER.to_bytes(2)
  return head + b"MTrk" + len(track).to_bytes(4) + track
