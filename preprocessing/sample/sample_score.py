"""From a song's description to its sound: who plays what, when."""

from collections.abc import Iterator
import dataclasses
import functools

import numpy as np

from preprocessing.sample import sample_styles
from preprocessing.sample import sample_world
from preprocessing.sample import synthesis

_SECTION_BARS = 4
_REST_SHARE = 0.12  # Of sections in which a part is silent.
_JITTER_S = 0.003
_MIX_DB = 3.0  # Standard deviation of the level of each part.
_LEVELS = {
  "kick": 1.0,
  "snare": 0.9,
  "hat": 0.7,
  "ghost": 0.7,
  "shaker": 0.9,
  "bass": 0.55,
  "chords": 0.35,
  "lead": 0.6,
}


@dataclasses.dataclass(frozen=True)
class Sheet:
  """All that is needed to play a song."""

  seed: int  # Of the sample.
  song: sample_world.Song
  host: sample_world.Artist  # Accompanies.
  guest: sample_world.Artist  # Plays the lead; the host in most songs.
  samples: int  # Length at 16 kHz.
  eq_db: float  # Strength of the song's random equaliser.

  @classmethod
  def of(
    cls,
    song: sample_world.Song,
    artists: list[sample_world.Artist],
    seed: int,
    samples: int,
    eq_db: float,
  ) -> "Sheet":
    """Gives a song to its artists."""
    host, guest = artists[song.artists[0]], artists[song.artists[-1]]
    return cls(seed, song, host, guest, samples, eq_db)


@dataclasses.dataclass(frozen=True)
class _Time:
  """The grid of a song: seconds of a step, steps of a bar, swing in steps."""

  step_s: float
  steps: int
  swing: float
  bars: int
  start_s: float  # Where in its first bar the excerpt begins.

  def at(self, bar: int, step: int) -> float:
    late = self.swing if step % 2 else 0.0
    return (bar * self.steps + step + late) * self.step_s - self.start_s


class _Player:
  """Plays the parts of one song into tracks; notes are synthesised once."""

  def __init__(self, sheet: Sheet):
    song, host = sheet.song, sheet.host
    self.sheet = sheet
    self.note = functools.cache(synthesis.note)
    self.rng = np.random.default_rng([sheet.seed, 3, song.song_id])
    self.style = sample_styles.STYLES[song.styles[0]]
    self.drum_style = sample_styles.STYLES[song.styles[-1]]
    self.mood = sample_styles.MOODS[song.mood]
    low, high = self.style.tempo_bpm
    tempo = low + (high - low) * host.tempo
    tempo *= self.mood.tempo * self.rng.uniform(0.97, 1.03)
    step_s = 60.0 / tempo / sample_styles.STEPS_PER_BEAT
    bar_s = step_s * self.style.steps
    length_s = sheet.samples / synthesis.RATE_HZ
    self.time = _Time(
      step_s=step_s,
      steps=self.style.steps,
      swing=self.style.swing,
      bars=int(length_s / bar_s) + 2,
      start_s=float(self.rng.uniform(0.0, bar_s)),
    )
    self.key = int(self.rng.integers(0, 12))
    self.scale = self.style.scales[int(self.mood.minor)]
    known = sample_styles.PROGRESSIONS[int(self.mood.minor)]
    # Two of an artist's own, one of them a song.
    choice = host.variants[5] + 2 * int(self.rng.integers(2))
    self.progression = known[choice % len(known)]
    voicings = sample_styles.VOICINGS
    self.voicing = voicings[host.variants[6] % len(voicings)]
    self.rests = self.rng.uniform(size=(len(_LEVELS), 64)) < _REST_SHARE
    # The chords never rest, so that no song is silent.
    self.rests[list(_LEVELS).index("chords")] = False

  def variant(self, patterns: tuple[str, ...], which: int) -> str:
    """Returns the host's variant of a pattern, fitted to the bar."""
    pattern = patterns[self.sheet.host.variants[which] % len(patterns)]
    return (pattern * 2)[: self.time.steps]

  def degree(self, bar: int) -> int:
    """Returns the degree of the scale that a bar's chord stands on."""
    chord = bar // self.style.bar_chords
    return self.progression[chord % len(self.progression)]

  def pitch(self, degree: int, base: int) -> int:
    """Returns the pitch of a degree of the scale, from `base` up."""
    octave, place = divmod(degree, len(self.scale))
    return base + self.key + 12 * octave + self.scale[place]

  def strokes(
    self, part: str, pattern: str
  ) -> Iterator[tuple[int, int, float]]:
    """Yields bar, step and loudness of a pattern where the part plays."""
    row = list(_LEVELS).index(part)
    for bar in range(self.time.bars):
      if not self.rests[row, bar // _SECTION_BARS % self.rests.shape[1]]:
        for step, sign in enumerate(pattern):
          if sign != ".":
            yield bar, step, sample_styles.ACCENTS[sign]

  def onset(self, bar: int, step: int) -> float:
    """Returns when a step sounds, with a player's inaccuracy."""
    return self.time.at(bar, step) + _JITTER_S * self.rng.standard_normal()

  def new_track(self) -> np.ndarray:
    return np.zeros(self.sheet.samples, np.float32)

  def drums(self, part: str, pattern: str) -> np.ndarray:
    """Plays a drum."""
    track = self.new_track()
    sound = synthesis.drum(self.sheet.host.kit, part, self.rng)
    for bar, step, loudness in self.strokes(part, pattern):
      loudness *= self.rng.uniform(0.85, 1.0)
      synthesis.add_at(track, sound, self.onset(bar, step), loudness)
    return track

  def bass(self) -> np.ndarray:
    """Plays the chord's root, now and then its fifth."""
    track, host = self.new_track(), self.sheet.host
    pattern = self.variant(self.style.bass, 3)
    held = self.held_steps(pattern)
    for bar, step, loudness in self.strokes("bass", pattern):
      fifth = 4 * int(self.rng.uniform() < 0.15)
      pitch = self.pitch(self.degree(bar) + fifth, 33)
      sound = self.note(host.bass, pitch, 0.9 * held[step] * self.time.step_s)
      synthesis.add_at(track, sound, self.onset(bar, step), loudness)
    return track

  def held_steps(self, pattern: str) -> dict[int, int]:
    """Returns, for each stroke, the steps until the next one."""
    strokes = [i for i, sign in enumerate(pattern) if sign != "."]
    ends = [*strokes[1:], strokes[0] + len(pattern)] if strokes else []
    whole_chord = self.style.bar_chords if len(strokes) == 1 else 1
    return {
      a: (b - a) * whole_chord for a, b in zip(strokes, ends, strict=True)
    }

  def chords(self) -> np.ndarray:
    """Plays the chords, together or as an arpeggio."""
    track = self.new_track()
    pattern = self.variant(self.style.chords, 4)
    held, host = self.held_steps(pattern), self.sheet.host
    base = 48 + 12 * int(self.rng.integers(0, 2))
    gate = self.style.chord_gate * min(self.mood.gate, 1.1)
    spread = 1.0 / np.sqrt(len(self.voicing))
    count = 0
    for bar, step, loudness in self.strokes("chords", pattern):
      long = held[step] > self.time.steps
      if long and bar % self.style.bar_chords:
        continue  # The chord of the bar before is still held.
      tones = [self.degree(bar) + tone for tone in self.voicing]
      if self.style.arpeggio:
        order = host.contour[count % len(host.contour)]
        tones = [tones[order % len(tones)] + 7 * (order > 3)]
        count += 1
      for tone in tones:
        seconds = gate * held[step] * self.time.step_s
        pitch = self.pitch(tone, base)
        darkness = self.mood.darkness
        sound = self.note(host.chords, pitch, seconds, darkness=darkness)
        when = self.onset(bar, step)
        level = loudness * (1.5 if self.style.arpeggio else spread)
        synthesis.add_at(track, sound, when, level)
    return track

  def lead(self) -> np.ndarray:
    """Plays the guest's motif over the chords."""
    track = self.new_track()
    guest, steps = self.sheet.guest, self.time.steps
    base = 60 + 12 * min(guest.register, 1) + 5 * (guest.register // 2)
    kept = self.rng.uniform(size=32) < min(1.0, 0.62 * self.mood.density)
    extra = self.rng.uniform(size=32) < 0.35 * (self.mood.density - 1.0)
    motif = np.array(guest.motif) * kept + 0.7 * extra
    row = list(_LEVELS).index("lead")
    note = 0
    for bar in range(self.time.bars):
      if self.rests[row, bar // _SECTION_BARS % self.rests.shape[1]]:
        continue
      half = motif[16 * (bar % 2) :][:steps]
      strokes = np.flatnonzero(half)
      ends = np.append(strokes, steps)[1:]
      for step, end in zip(strokes.tolist(), ends.tolist(), strict=True):
        degree = self.degree(bar) + guest.contour[note % len(guest.contour)]
        note += 1
        sound = self.note(
          guest.lead,
          self.pitch(degree, base),
          self.mood.gate * min(end - step, 8) * self.time.step_s,
          darkness=self.mood.darkness,
        )
        when = self.onset(bar, step)
        synthesis.add_at(track, sound, when, float(half[step]))
    return track

  def play(self) -> np.ndarray:
    """Plays and mixes all parts."""
    host, drums = self.sheet.host, self.drum_style
    ghost = "".join(".oxX"[round(3 * loudness)] for loudness in host.ghost)
    patterns = {
      "kick": self.variant(drums.kick, 0),
      "snare": self.variant(drums.snare, 1),
      "hat": self.variant(drums.hat, 2),
      "ghost": (ghost * 2)[: self.time.steps],
      "shaker": (self.mood.pulse * 4)[: self.time.steps],
    }
    tonal = {"bass": self.bass, "chords": self.chords, "lead": self.lead}
    level = {
      part: base * 10.0 ** (_MIX_DB * self.rng.standard_normal() / 20.0)
      for part, base in _LEVELS.items()
    }
    mix = self.new_track()
    for part, pattern in patterns.items():
      if pattern.strip("."):
        track = self.drums(part, pattern)
        mix += np.float32(drums.drum_level * level[part]) * track
    for part, play_part in tonal.items():
      mix += np.float32(level[part]) * play_part()
    return synthesis.master(mix, self.sheet.eq_db, self.rng)


def play(sheet: Sheet) -> np.ndarray:
  """Returns a song's audio at 16 kHz in [-1, 1], float32 [samples]."""
  return _Player(sheet).play()
