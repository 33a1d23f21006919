"""Musical tables of the sample: what makes a sub-genre and a mood.

Patterns are one bar of equal steps, four steps to a beat: `X` accented, `x`
plain, `o` soft, `.` nothing. Sub-genres differ in what happens in time, and
share the families of sound, so that a mean spectrum tells little.
"""

import dataclasses

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
DORIAN = (0, 2, 3, 5, 7, 9, 10)
MIXOLYDIAN = (0, 2, 4, 5, 7, 9, 10)
STEPS_PER_BEAT = 4
ACCENTS = {"X": 1.0, "x": 0.75, "o": 0.45}


@dataclasses.dataclass(frozen=True)
class Envelope:
  """How a note grows and fades; times in seconds."""

  attack_s: float
  decay_s: float  # To 1/e while it is held.
  release_s: float


PLUCK = Envelope(0.004, 0.22, 0.05)
STAB = Envelope(0.006, 0.09, 0.03)
RING = Envelope(0.004, 0.9, 0.2)
HOLD = Envelope(0.03, 30.0, 0.08)
BLOW = Envelope(0.07, 6.0, 0.1)
SWELL = Envelope(0.9, 30.0, 0.9)


@dataclasses.dataclass(frozen=True)
class Style:
  """One sub-genre.

  Attributes:
    code: code of the sub-genre; its genre's ends in 00.
    name: for genre_gn_all.json and titles.
    tempo_bpm: lowest and highest.
    scales: of songs in a major and in a minor mood.
    kick, snare, hat, bass, chords: variants of a pattern, an artist has one.
    bar_chords: bars that a chord lasts.
    swing: delay of every second step, in steps.
    chord_envelope, lead_envelope, bass_envelope: how those instruments sound.
    chord_gate: share of the time to the next chord that one is held.
    arpeggio: chord notes one after the other instead of together.
    lead_share: share of the artist's motif that is played.
    drum_level: of all drums, in [0, 1].
  """

  code: str
  name: str
  tempo_bpm: tuple[float, float]
  scales: tuple[tuple[int, ...], tuple[int, ...]]
  kick: tuple[str, ...]
  snare: tuple[str, ...]
  hat: tuple[str, ...]
  bass: tuple[str, ...]
  chords: tuple[str, ...]
  bar_chords: int
  swing: float
  chord_envelope: Envelope
  lead_envelope: Envelope
  bass_envelope: Envelope
  chord_gate: float
  arpeggio: bool
  lead_share: float
  drum_level: float

  @property
  def genre(self) -> str:
    """Code of the genre that the sub-genre belongs to."""
    return self.code[:-2] + "00"

  @property
  def steps(self) -> int:
    """Steps of a bar."""
    return len(self.kick[0])


GENRES = {"GN0100": "Club", "GN0200": "Band", "GN0300": "Quiet"}

STYLES = (
  Style(
    code="GN0101",
    name="House",
    tempo_bpm=(116, 132),
    scales=(MIXOLYDIAN, DORIAN),
    kick=("X...X...X...X...",) * 2 + ("X...X...X...X..x",),
    snare=("....x.......x...", "....x.......x.o.", "....x..o....x..."),
    hat=("..X...X...X...X.", "o.X.o.X.o.X.o.X.", "ooXoooXoooXoooXo"),
    bass=("..x...x...x...x.", "..xx..xx..xx..xx", "x.xx..x.x.xx..x."),
    chords=("x..x..x...x..x..", "..x..x....x..x..", "x.....x..x......"),
    bar_chords=1,
    swing=0.0,
    chord_envelope=STAB,
    lead_envelope=PLUCK,
    bass_envelope=STAB,
    chord_gate=0.5,
    arpeggio=False,
    lead_share=0.6,
    drum_level=1.0,
  ),
  Style(
    code="GN0102",
    name="Drum and Bass",
    tempo_bpm=(160, 178),
    scales=(MAJOR, MINOR),
    kick=("X.........X.....", "X.....x...X.....", "X..x......X..x.."),
    snare=("....X..o.o..X...", "....X.......X..o", "....X..o....X.o."),
    hat=("x.x.x.x.x.x.x.x.", "xoxxxoxxxoxxxoxx", "x.xxx.x.x.xxx.x."),
    bass=("X.............x.", "X.........X.....", "X.....x........."),
    chords=("X...............",) * 3,
    bar_chords=2,
    swing=0.0,
    chord_envelope=HOLD,
    lead_envelope=BLOW,
    bass_envelope=HOLD,
    chord_gate=1.0,
    arpeggio=False,
    lead_share=0.35,
    drum_level=1.0,
  ),
  Style(
    code="GN0103",
    name="Hip Hop",
    tempo_bpm=(78, 98),
    scales=(DORIAN, MINOR),
    kick=("X..x......x.....", "X.....x.x.......", "X..x...x..x....."),
    snare=("....X.......X...", "....X.......X..o", "....X..o.o..X..."),
    hat=("x.x.x.x.x.x.x.x.", "x.xxx.x.x.x.x.xx", "x.x.x.xxx.x.xxx."),
    bass=("X..x......x.....", "X.....x.x.......", "X..........x.x.."),
    chords=("X...............", "X.....x.........", "...x......x....."),
    bar_chords=1,
    swing=0.33,
    chord_envelope=RING,
    lead_envelope=PLUCK,
    bass_envelope=RING,
    chord_gate=0.8,
    arpeggio=False,
    lead_share=0.5,
    drum_level=0.95,
  ),
  Style(
    code="GN0201",
    name="Rock",
    tempo_bpm=(124, 152),
    scales=(MIXOLYDIAN, MINOR),
    kick=("X.......X.x.....", "X.x.....X.......", "X.....x.X.x....."),
    snare=("....X.......X...", "....X.......X...", "....X.......X.xx"),
    hat=("x.x.x.x.x.x.x.x.", "X...X...X...X...", "X.o.X.o.X.o.X.o."),
    bass=("x.x.x.x.x.x.x.x.", "x.x.x.x.x.xxx.x.", "x...x.x.x...x.x."),
    chords=("X.x.x.X.x.x.X.x.", "X.....X.....X...", "X.x.X.x.X.x.X.x."),
    bar_chords=1,
    swing=0.0,
    chord_envelope=HOLD,
    lead_envelope=HOLD,
    bass_envelope=PLUCK,
    chord_gate=0.85,
    arpeggio=False,
    lead_share=0.5,
    drum_level=0.9,
  ),
  Style(
    code="GN0202",
    name="Bossa Nova",
    tempo_bpm=(100, 128),
    scales=(MAJOR, DORIAN),
    kick=("x.....x.x.....x.", "x.....xxx.....xx", "x.......x......."),
    snare=("x..x..x...x..x..", "x..x..x...x.x...", "..x...x.x..x..x."),
    hat=("ooooooooooooooo.", "oxooxoooxoooxooo", "o.o.o.o.o.o.o.o."),
    bass=("x.....x.x.....x.", "x.....xxx.....xx", "x.....x.x......."),
    chords=("x..x..x...x..x..", "x..x...x..x...x.", "..x...x.x...x..x"),
    bar_chords=2,
    swing=0.0,
    chord_envelope=PLUCK,
    lead_envelope=BLOW,
    bass_envelope=PLUCK,
    chord_gate=0.7,
    arpeggio=False,
    lead_share=0.5,
    drum_level=0.5,
  ),
  Style(
    code="GN0203",
    name="Waltz",
    tempo_bpm=(96, 138),
    scales=(MAJOR, MINOR),
    kick=("X...........", "X.........o.", "X..........."),
    snare=("....o...o...", "....x...x...", "....x...x.x."),
    hat=("....x...x...", "o...x...x...", "..o.x.o.x.o."),
    bass=("X...........", "X.......o...", "X.........x."),
    chords=("....X...X...", "....X...X.x.", "....X.x.X..."),
    bar_chords=1,
    swing=0.0,
    chord_envelope=STAB,
    lead_envelope=BLOW,
    bass_envelope=RING,
    chord_gate=0.5,
    arpeggio=False,
    lead_share=0.75,
    drum_level=0.6,
  ),
  Style(
    code="GN0301",
    name="Ambient",
    tempo_bpm=(56, 76),
    scales=(MAJOR, MINOR),
    kick=("................", "o...............", "................"),
    snare=("................", "............o...", "................"),
    hat=("o.......o.......", "................", "o...o...o...o..."),
    bass=("X...............",) * 3,
    chords=("X...............", "X.......X.......", "X..............."),
    bar_chords=1,
    swing=0.0,
    chord_envelope=SWELL,
    lead_envelope=RING,
    bass_envelope=SWELL,
    chord_gate=1.1,
    arpeggio=False,
    lead_share=0.35,
    drum_level=0.5,
  ),
  Style(
    code="GN0302",
    name="Minimal",
    tempo_bpm=(104, 140),
    scales=(MAJOR, MINOR),
    kick=("................", "x...............", "x.......x......."),
    snare=("................", "................", "........o......."),
    hat=("................", "x...x...x...x...", "..o...o...o...o."),
    bass=("X...............", "X.......x.......", "x...x...x...x..."),
    chords=("XxxxXxxxXxxxXxxx", "XxxXxxXxxXxxXxxx", "X.xxX.xxX.xxX.xx"),
    bar_chords=1,
    swing=0.0,
    chord_envelope=PLUCK,
    lead_envelope=RING,
    bass_envelope=RING,
    chord_gate=0.9,
    arpeggio=True,
    lead_share=0.25,
    drum_level=0.5,
  ),
)


@dataclasses.dataclass(frozen=True)
class Mood:
  """What a mood does to a song of any sub-genre.

  Attributes:
    name: for tags and titles.
    minor: picks the style's second scale and the progressions.
    tempo: factor on the tempo.
    density: factor on how much of the motif is played.
    gate: factor on the length of notes.
    darkness: harmonic k is weakened by k ** -darkness.
    slide: semitones a lead note slides by: before it up, after it down.
    pulse: pattern of a shaker that energetic songs have.
  """

  name: str
  minor: bool
  tempo: float
  density: float
  gate: float
  darkness: float
  slide: float
  pulse: str


MOODS = (
  Mood("Sunny", False, 1.05, 1.3, 0.6, 0.0, 3.0, ""),
  Mood("Workout", True, 1.12, 1.6, 0.45, 0.0, 0.0, "xxXx"),
  Mood("Sleepy", False, 0.90, 0.6, 1.2, 0.7, 0.0, ""),
  Mood("Lonely", True, 0.94, 0.7, 1.1, 0.4, -4.0, ""),
)

# Degrees of the scale from 0, one a chord; by whether the mood is minor.
PROGRESSIONS = (
  ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4), (0, 2, 3, 4), (3, 4, 0, 0)),
  ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 0, 3, 4), (5, 6, 0, 0)),
)
VOICINGS = ((0, 2, 4), (0, 4, 7), (0, 2, 4, 6), (0, 4, 9), (0, 2, 6))

# Strength of harmonics 1.. of a sound: any sub-genre uses any family.
FAMILIES = {
  "string": tuple(k**-1.0 for k in range(1, 21)),
  "reed": tuple(k**-0.7 * (1.0 if k % 2 else 0.15) for k in range(1, 16)),
  "flute": tuple(k**-2.2 for k in range(1, 7)),
  "brass": (0.5, 0.8, 1.0, 0.9, 0.6, 0.4, 0.3, 0.2, 0.15, 0.1),
  "bell": (1.0, 0.1, 0.05, 0.6, 0.0, 0.4, 0.0, 0.0, 0.3, 0.0, 0.2),
  "organ": (1.0, 0.7, 0.1, 0.6, 0.0, 0.1, 0.0, 0.5, 0.0, 0.0, 0.0, 0.3),
}
