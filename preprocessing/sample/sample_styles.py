"""The musical tables of the sample; styles.toml says what each value is."""

import dataclasses
import pathlib
import tomllib
import types
from typing import Any


@dataclasses.dataclass(frozen=True)
class Envelope:
  """How a note grows and fades; times in seconds."""

  attack_s: float
  decay_s: float  # To 1/e while it is held.
  release_s: float


def _style(table: dict[str, Any]) -> types.SimpleNamespace:
  """Returns a sub-genre: its table, names replaced by what they stand for."""
  made = types.SimpleNamespace(**table)
  made.scales = [_TABLES["scales"][name] for name in made.scales]
  for part in ("chord", "lead", "bass"):
    name = f"{part}_envelope"
    setattr(made, name, ENVELOPES[getattr(made, name)])
  made.genre = made.code[:-2] + "00"
  made.steps = len(made.kick[0])
  return made


def _harmonics(
  strengths: tuple[float, ...] = (),
  count: int = 0,
  power: float = 0.0,
  even: float = 1.0,
) -> tuple[float, ...]:
  return tuple(strengths) or tuple(
    k**-power * (1.0 if k % 2 else even) for k in range(1, count + 1)
  )


_TABLES = tomllib.loads(
  pathlib.Path(__file__).with_name("styles.toml").read_text(encoding="utf-8")
)
STEPS_PER_BEAT = _TABLES["steps_per_beat"]
ACCENTS = _TABLES["accents"]
GENRES = _TABLES["genres"]
VOICINGS = _TABLES["voicings"]
PROGRESSIONS = _TABLES["progressions"]
ENVELOPES = {k: Envelope(*times) for k, times in _TABLES["envelopes"].items()}
STYLES = [_style(table) for table in _TABLES["styles"]]
MOODS = [types.SimpleNamespace(**table) for table in _TABLES["moods"]]
FAMILIES = {k: _harmonics(**one) for k, one in _TABLES["families"].items()}
