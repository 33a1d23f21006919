"""Who and what the sample is about: artists, songs, albums, playlists.

Everything follows from the seed; nothing here makes a sound.
"""

import dataclasses
from typing import Any

import numpy as np

from preprocessing.sample import sample_styles
from preprocessing.sample import synthesis

_SYLLABLES = "ba ko mi ra ne lo shi ta vu del mar ven sol pia rin jo ek".split()
_ADJECTIVES = "Blue Silent Golden Broken Distant Paper Electric Late".split()
_NOUNS = "River Window Garden Signal Summer Mirror Street Letter".split()
_FIRST_ALBUM_ID = 10_000
_FIRST_ARTIST_ID = 2_000
_ID_SPAN = 8_000  # Song ids are drawn below it: eight folders.
_GUEST_SHARE = 0.08
_SECOND_STYLE_SHARE = 0.08
_POPULARITY_POWER = 0.8


@dataclasses.dataclass(frozen=True)
class Artist:
  """An artist, whose habits are heard in all of their songs."""

  artist_id: int  # This and the name: as in song_meta.json.
  name: str
  style: int  # The main sub-genre, in STYLES.
  moods: tuple[float, ...]  # How often each is taken; sums to 1.
  lead: synthesis.Instrument
  chords: synthesis.Instrument
  bass: synthesis.Instrument
  kit: synthesis.DrumKit
  tempo: float  # Place in the sub-genre's range of tempo, 0 to 1.
  # Which variant of kick, snare, hat, bass, chords, and which progressions and
  # voicing; modulo what there is.
  variants: tuple[int, ...]
  motif: tuple[float, ...]  # Loudness of the lead in each of 32 steps.
  contour: tuple[int, ...]  # Degrees of the scale that the lead goes through.
  ghost: tuple[float, ...]  # Loudness of one more drum in each of 16 steps.
  register: int  # Octave of the lead.


@dataclasses.dataclass(frozen=True)
class Song:
  """A song as it stands in song_meta.json, and its mood."""

  song_id: int
  name: str
  artists: tuple[int, ...]  # The first accompanies, the last plays the lead.
  styles: tuple[int, ...]  # The first has the harmony, the last the drums.
  mood: int  # In MOODS.
  album: tuple[int, str, str]  # Id, name, date of issue as YYYYMMDD.
  popularity: float  # Weight in draws of playlists.


def _draw_instrument(
  families: list[str],
  envelope: sample_styles.Envelope,
  rng: np.random.Generator,
) -> synthesis.Instrument:
  family = sample_styles.FAMILIES[families[rng.integers(len(families))]]
  spread = np.exp(0.5 * rng.standard_normal(len(family)))
  # Plain floats: numpy's would widen every array they touch.
  stretch = np.exp(rng.uniform(-0.5, 0.5, 3)).tolist()
  return synthesis.Instrument(
    harmonics=tuple((np.array(family) * spread).round(4).tolist()),
    envelope=sample_styles.Envelope(
      envelope.attack_s * stretch[0],
      envelope.decay_s * stretch[1],
      envelope.release_s * stretch[2],
    ),
    vibrato_hz=float(rng.uniform(3.0, 8.5)),
    vibrato_semitones=float(rng.choice([0.0, 0.0, 0.3, 0.6, 1.0])),
    tremolo_hz=float(rng.uniform(4.0, 11.0)),
    tremolo_depth=float(rng.choice([0.0, 0.0, 0.5, 0.85])),
  )


def _draw_line(
  steps: int, share: float, rng: np.random.Generator
) -> tuple[float, ...]:
  """Draws a rhythm: loudness in each step, 0 in all but a share of them."""
  on_beat = np.tile([1.0, 0.45, 0.8, 0.45], steps // 4)
  score = on_beat * rng.uniform(0.2, 1.0, steps)
  kept = score >= np.sort(score)[-max(1, round(share * steps))]
  loudness = rng.choice([0.55, 0.8, 1.0], steps)
  return tuple((kept * loudness).tolist())


def _draw_kit(rng: np.random.Generator) -> synthesis.DrumKit:
  return synthesis.DrumKit(
    kick_hz=rng.uniform(42.0, 75.0),
    kick_decay_s=float(np.exp(rng.uniform(-2.8, -1.5))),
    snare_hz=rng.uniform(150.0, 330.0),
    snare_decay_s=float(np.exp(rng.uniform(-3.4, -1.9))),
    hat_decay_s=float(np.exp(rng.uniform(-4.6, -2.6))),
    ghost_hz=float(np.exp(rng.uniform(4.7, 7.3))),
    ghost_decay_s=float(np.exp(rng.uniform(-3.3, -2.0))),
  )


def _draw_name(rng: np.random.Generator) -> str:
  parts = rng.choice(_SYLLABLES, rng.integers(2, 4))
  return "".join(parts).capitalize()


def draw_artists(count: int, seed: int) -> list[Artist]:
  """Draws the artists; artist i does not depend on how many there are."""
  artists = []
  for i in range(count):
    rng = np.random.default_rng([seed, 1, i])
    style = sample_styles.STYLES[i % len(sample_styles.STYLES)]
    artists.append(
      Artist(
        artist_id=_FIRST_ARTIST_ID + i,
        name=f"{_draw_name(rng)} {_draw_name(rng)}",
        style=i % len(sample_styles.STYLES),
        moods=tuple(
          rng.dirichlet(np.full(len(sample_styles.MOODS), 0.8)).tolist()
        ),
        lead=_draw_instrument(style.families, style.lead_envelope, rng),
        chords=_draw_instrument(style.families, style.chord_envelope, rng),
        bass=_draw_instrument(style.families, style.bass_envelope, rng),
        kit=_draw_kit(rng),
        tempo=float(rng.uniform()),
        variants=tuple(rng.integers(60, size=7).tolist()),
        motif=_draw_line(32, style.lead_share * rng.uniform(0.5, 1.1), rng),
        contour=tuple(rng.integers(-3, 7, rng.integers(3, 9)).tolist()),
        ghost=_draw_line(16, rng.choice([0.07, 0.15, 0.3]), rng),
        register=int(rng.integers(0, 3)),
      )
    )
  return artists


def _draw_albums(artist: Artist, rng: np.random.Generator) -> list:
  albums = []
  for i in range(rng.integers(1, 5)):
    name = f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
    year, month, day = rng.integers([1985, 1, 1], [2020, 13, 29]).tolist()
    album_id = _FIRST_ALBUM_ID + 10 * artist.artist_id + i
    albums.append((album_id, name, f"{year}{month:02}{day:02}"))
  return albums


def _others(count: int, one: int, rng: np.random.Generator) -> int:
  """Draws a number below `count` that is not `one`."""
  return int((one + 1 + rng.integers(count - 1)) % count)


def draw_songs(artists: list[Artist], count: int, seed: int) -> list[Song]:
  """Draws the songs, in order of their ids."""
  rng = np.random.default_rng([seed, 2])
  span = max(_ID_SPAN, 2 * count)
  ids = np.sort(rng.choice(span, count, replace=False)).tolist()
  # Every artist has a song before one has several more.
  productive = rng.dirichlet(np.full(len(artists), 4.0))
  main = rng.choice(len(artists), count, p=productive)
  main[: len(artists)] = rng.permutation(len(artists))[:count]
  main = rng.permutation(main).tolist()
  popularity = (1.0 + rng.permutation(count)) ** -_POPULARITY_POWER
  albums = [_draw_albums(artist, rng) for artist in artists]
  songs = []
  for song_id, first, weight in zip(ids, main, popularity, strict=True):
    artist = artists[first]
    played, styles = (first,), (artist.style,)
    if rng.uniform() < _GUEST_SHARE and len(artists) > 1:
      played += (_others(len(artists), first, rng),)
    if rng.uniform() < _SECOND_STYLE_SHARE:
      styles += (_others(len(sample_styles.STYLES), artist.style, rng),)
    own = albums[first]
    songs.append(
      Song(
        song_id=song_id,
        name=f"{rng.choice(_ADJECTIVES)} {_draw_name(rng)}",
        artists=played,
        styles=styles,
        mood=int(rng.choice(len(artist.moods), p=artist.moods)),
        album=own[rng.integers(len(own))],
        popularity=float(weight),
      )
    )
  return songs


def song_record(song: Song, artists: list[Artist]) -> dict[str, Any]:
  """Returns a song's record of song_meta.json."""
  styles = [sample_styles.STYLES[i] for i in song.styles]
  album_id, album_name, issue_date = song.album
  return {
    "id": song.song_id,
    "album_id": album_id,
    "album_name": album_name,
    "artist_id_basket": [artists[i].artist_id for i in song.artists],
    "artist_name_basket": [artists[i].name for i in song.artists],
    "song_name": song.name,
    "song_gn_gnr_basket": list(dict.fromkeys(s.genre for s in styles)),
    "song_gn_dtl_gnr_basket": [s.code for s in styles],
    "issue_date": issue_date,
  }


def genre_names() -> dict[str, str]:
  """Returns genre_gn_all.json: code -> name, genres before sub-genres."""
  return sample_styles.GENRES | {s.code: s.name for s in sample_styles.STYLES}
