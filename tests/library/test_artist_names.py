"""Tests of pcl_jax.library.artist_names."""

import pytest

from pcl_jax.library import artist_names


@pytest.mark.parametrize(
  ("value", "names"),
  [
    ("A feat. B", ["A", "B"]),
    ("A ft B", ["A", "B"]),
    ("A FEATURING B", ["A", "B"]),
    ("A (feat. B)", ["A", "B"]),
    ("A [ft. B]", ["A", "B"]),
    ("A, feat. B", ["A", "B"]),
    ("A; B;;a", ["A", "B"]),
    ("A\0B", ["A", "B"]),
    ("A & B", ["A & B"]),
    ("Daft Punk", ["Daft Punk"]),
    ("Defeater", ["Defeater"]),
    ("Ft. Worth", ["Ft. Worth"]),
    (" ; ", []),
  ],
)
def test_guests_and_lists_are_always_split(value, names):
  assert artist_names.without_guests([value]) == names


def _split(names, rule="known"):
  names = artist_names.without_guests(names, rule)
  known = artist_names.known_names(names)
  return {name: artist_names.single([name], known, rule) for name in names}


def test_names_that_no_library_has_the_parts_of_stay_whole():
  whole = [
    "Simon & Garfunkel",
    "AC/DC",
    "Earth, Wind & Fire",
    "Tyler, The Creator",
    "Crosby, Stills & Nash",
  ]
  # One of the parts is not enough.
  assert _split([*whole, "Garfunkel", "Nash", "Fire"]) == {
    name: [name] for name in [*whole, "Garfunkel", "Nash", "Fire"]
  }


@pytest.mark.parametrize(
  "sign",
  [" & ", ", ", " / ", "/", " + ", " x ", " vs. ", " and ", " With ", "、"],
)  # fmt: skip
def test_names_are_split_where_both_parts_are_artists(sign):
  name = f"One{sign}two"
  assert _split([name, "One", "Two"])[name] == ["One", "two"]
  assert _split([name, "One"])[name] == [name]


def test_a_band_with_signs_in_its_name_is_found_among_others():
  name = "Earth, Wind & Fire, Nobody & One"
  found = _split([name, "Earth, Wind & Fire", "One", "Nobody", "Nobody & One"])
  assert found[name] == ["Earth, Wind & Fire", "Nobody", "One"]
  assert found["Nobody & One"] == ["Nobody", "One"]


def test_the_other_rules_split_everywhere_or_nowhere():
  names = ["Simon & Garfunkel", "A feat. B", "One/Two", "One", "Two", "C; D"]
  assert _split(names, "never")["One/Two"] == ["One/Two"]
  assert "A feat. B" in _split(names, "never") and "C" in _split(names, "never")
  always = _split(names, "always")
  assert always["Simon & Garfunkel"] == ["Simon", "Garfunkel"]


@pytest.mark.parametrize(
  ("listed", "displayed", "names"),
  [
    (["Logic", "Ryan Tedder"], "Logic & Ryan Tedder", ["Logic", "Ryan Tedder"]),
    (
      ["Logic/Ryan Tedder"],
      "Logic feat. Ryan Tedder",
      ["Logic", "Ryan Tedder"],
    ),
    (["AC/DC"], "AC/DC", ["AC/DC"]),
    (["AC/DC/Slash"], "AC/DC with Slash", ["AC/DC", "Slash"]),
    (["AC/DC"], "", ["AC/DC"]),
    (["Simon & Garfunkel; X"], "", ["Simon & Garfunkel", "X"]),
  ],
)
def test_the_tag_artists_is_taken_as_it_stands(listed, displayed, names):
  assert artist_names.listed(listed, [displayed]) == names


def test_a_name_of_thousands_of_parts_is_done_at_once():
  name = ", ".join(map(str, range(5000)))
  assert _split([name, "1", "2"])[name] == [name]
