"""Tests of pcl_jax.data.strategies."""

import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import strategies

A_P, A_G, G_P = ["audio", "cf"], ["audio", "genre_w2v"], ["cf", "genre_w2v"]
SS = ["audio", "audio_self"]


def _message(combos, method) -> str:
  with pytest.raises(errors.InputError) as error:
    strategies.parse(combos, method)
  return str(error.value)


@pytest.mark.parametrize(
  ("combos", "method", "name"),
  [
    ([SS], "", "SS"),
    ([A_P], "", "CM A,P"),
    ([A_G], "", "CM A,G"),
    ([A_P, A_G, G_P], "", "CM A,G,P"),
    ([], "Playlist", "A-IM Playlist"),
    ([], "Artist", "A-IM Artist"),
    ([], "Genre", "A-IM Genre"),
    ([A_P], "Artist", "Hybrid Artist + A,P"),
    ([A_G], "Genre", "Hybrid Genre + A,G"),
    ([A_P, A_G, G_P], "Playlist", "Hybrid Playlist + A,G,P"),
  ],
)
def test_every_strategy_of_the_paper_has_its_name(combos, method, name):
  assert strategies.parse(combos, method).name == name


def test_a_pair_may_stand_alone_in_any_order_in_lists_or_tuples():
  for first, second in strategies.COMBOS[:3]:
    expected = strategies.Strategy(((first, second),), "")
    for pair in ([first, second], [second, first]):
      for combos in (pair, tuple(pair), [pair], (tuple(pair),), [pair, pair]):
        assert strategies.parse(combos, None) == expected


def test_pairs_keep_the_order_in_which_they_are_listed():
  combos = [["genre_w2v", "cf"], ["cf", "audio"]]
  parsed = strategies.parse(combos, "")
  assert parsed.combos == (("cf", "genre_w2v"), ("audio", "cf"))


@pytest.mark.parametrize("nothing", [None, [], (), ""])
def test_no_pairs_can_be_written_in_any_way(nothing):
  assert strategies.parse(nothing, "Genre").combos == ()


def test_a_strategy_knows_what_its_batches_hold():
  def facts(combos, method):
    s = strategies.parse(combos, method)
    return s.two_patches, s.paired, s.modes, s.needs_tags

  both = ("cf", "genre_w2v")
  assert facts([SS], "") == (True, True, (), False)
  assert facts([A_P], "") == (False, False, ("cf",), False)
  assert facts([A_G, A_P], "") == (False, False, both, True)
  assert facts([], "Playlist") == (False, True, (), False)
  assert facts([], "Genre") == (False, True, (), True)
  assert facts([A_P], "Genre") == (False, True, ("cf",), True)


@pytest.mark.parametrize(
  ("combos", "method", "parts"),
  [
    ([["audio", "lyrics"]], "", ["audio", "lyrics", "[audio, cf]"]),
    ([["audio", "audio"]], "", ["['audio', 'audio']", "in either order"]),
    ([["audio_self", "cf"]], "", ["['audio_self', 'cf']"]),
    ([["audio", "cf", "genre_w2v"]], "", ["['audio', 'cf', 'genre_w2v']"]),
    (["audio", "cf", "genre_w2v"], "", ["['audio']"]),
    ([["audio", 3]], "", ["['audio', 3]"]),
    ([["audio", ["cf"]]], "", ["['audio', ['cf']]"]),
    ("audio", "", ["contrast_combos"]),
    ([], "playlist", ["'playlist'", *catalogues.PAIR_METHODS]),
    ([], "", ["nothing would train the audio encoder"]),
    (None, None, ["nothing would train the audio encoder"]),
    ([G_P], "", ["[cf, genre_w2v]", "nothing would train"]),
    ([SS, A_P], "", ["stands alone", "SS"]),
    ([SS], "Artist", ["stands alone", "SS"]),
  ],
)
def test_what_cannot_be_trained_is_refused_with_its_value(
  combos, method, parts
):
  message = _message(combos, method)
  for part in parts:
    assert part in message
