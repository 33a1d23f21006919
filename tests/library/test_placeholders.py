"""Tests of pcl_jax.library.placeholders."""

import pytest

from pcl_jax.library import placeholders


@pytest.mark.parametrize(
  "name",
  [
    "Unknown Artist", "unknown artist", "[unknown]", "<Unknown>", "(Unknown)",
    "Unknown Artist (2)", "Unknown Artist 12", "Various Artists", "VA", "V.A.",
    "V/A", "VA 2004", "Verschiedene", "Unbekannter Interpret", "AA.VV.",
    "Artiste inconnu", "Va\u0301rios artistas", "Неизвестный исполнитель",
    "不明なアーティスト", "群星", "[no artist]", "[Disney]",
  ],
)  # fmt: skip
def test_what_taggers_write_for_no_artist_is_none(name):
  assert name in placeholders.Placeholders("artists")


@pytest.mark.parametrize(
  "name",
  ["Unknown Mortal Orchestra", "Artist 0", "Disney", "Vast", "311", "", "U2"],
)
def test_artists_are_no_placeholders(name):
  assert name not in placeholders.Placeholders("artists")


def test_a_list_of_ones_own_replaces_the_built_in_one_or_adds_to_it():
  own = placeholders.Placeholders("artists", ["My Radio", ""])
  assert "MY RADIO" in own and "Unknown Artist" not in own and "" not in own
  more = placeholders.Placeholders("artists", ["My Radio", "+"])
  assert "my radio" in more and "Unknown Artist" in more and "+" not in more


def test_genres_and_albums_have_lists_of_their_own():
  genres = placeholders.Placeholders("genres")
  assert "Other" in genres and "Soundtrack" not in genres
  when = "Unknown Album (3-12-2009 2-41-33 PM)"
  assert when in placeholders.Placeholders("albums")
