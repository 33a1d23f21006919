"""Tests of pcl_jax.strategy."""

import functools
import itertools

import jax
import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import strategies
from pcl_jax.losses import dense_nt_xent
from pcl_jax.losses import nt_xent
from pcl_jax.training import train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

A_P, A_G, G_P = ["audio", "cf"], ["audio", "genre_w2v"], ["cf", "genre_w2v"]
SS = ["audio", "audio_self"]
CODES, ROWS = 6, 8


def _projections() -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {
    mode: jax.numpy.asarray(rng.standard_normal((ROWS, 5)), np.float32)
    for mode in ("audio", "cf", "genre_w2v")
  }


def _tags() -> jax.Array:
  tags = np.random.default_rng(1).integers(0, CODES + 1, (ROWS, 3))
  return jax.numpy.asarray(tags, np.int32)


def _terms(
  combos, method, projections=None, sharing=None, tiled_above=99
) -> dict[str, float]:
  found = strategies.loss_terms(
    strategies.parse(combos, method),
    projections or _projections(),
    _tags(),
    num_codes=CODES,
    contrast=functools.partial(
      nt_xent.nt_xent,
      temperature=0.1,
      mesh=train_step.make_mesh(jax.devices()[:1]),
      tiled_above=tiled_above,
      tile=4,
    ),
    sharing=sharing,
  )
  return {name: float(value) for name, value in found.items()}


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


def test_terms_are_named_as_published_and_add_up():
  assert list(_terms([SS], "")) == ["audio+audio_self", "total"]
  everything = _terms([A_P, A_G, G_P], "Playlist")
  assert list(everything) == [
    "audio+cf",
    "audio+genre_w2v",
    "cf+genre_w2v",
    "audio_Playlist_CO",
    "total",
  ]
  np.testing.assert_allclose(
    everything["total"],
    sum(v for name, v in everything.items() if name != "total"),
    rtol=1e-6,
  )


@pytest.mark.parametrize("method", catalogues.PAIR_METHODS)
def test_a_hybrid_has_the_terms_of_its_parts(method):
  hybrid = _terms([A_P, A_G, G_P], method)
  cross, intra = _terms([A_P, A_G, G_P], ""), _terms([], method)
  np.testing.assert_allclose(
    hybrid["total"], cross["total"] + intra["total"], rtol=1e-6
  )
  assert hybrid == cross | intra | {"total": hybrid["total"]}


def test_cross_modal_terms_run_over_all_rows_audio_terms_over_the_halves():
  x = _projections()
  a, p = x["audio"][: ROWS // 2], x["audio"][ROWS // 2 :]
  alone = dense_nt_xent.nt_xent(a, p, 0.1)
  weights = dense_nt_xent.genre_weights(_tags(), CODES)
  expected = {
    "audio+cf": dense_nt_xent.nt_xent(x["audio"], x["cf"], 0.1),
    "cf+genre_w2v": dense_nt_xent.nt_xent(x["cf"], x["genre_w2v"], 0.1),
    "audio_Artist_CO": alone,
    "audio_Genre_CO": dense_nt_xent.nt_xent(a, p, 0.1, weights),
    "audio+audio_self": alone,
  }
  found = _terms([SS], "") | _terms([A_P, G_P], "Artist") | _terms([], "Genre")
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6)
  assert abs(float(expected["audio_Genre_CO"]) - float(alone)) > 0.01


def test_the_order_of_modes_in_a_pair_does_not_change_the_loss():
  totals = [
    _terms([list(order)], "")["total"] for order in itertools.permutations(A_P)
  ]
  assert totals[0] == totals[1]


@pytest.mark.parametrize(
  "shares", [pytest.param(False, marks=pytest.mark.long), True]
)
def test_terms_do_not_depend_on_whether_all_pairs_are_held_at_once(shares):
  sharing = None
  if shares:  # Songs 0 and 2 stand in a list, 1, 4 and 5 in another.
    entries = np.full((2, 16), ROWS, np.int32)
    entries[:, :5] = [[0, 2, 1, 4, 5], [0, 0, 1, 1, 1]]
    sharing = nt_xent.sharing_of(jax.numpy.asarray(entries), ROWS)
  for combos, method in (([A_P, A_G, G_P], "Genre"), ([SS], "")):
    whole = _terms(combos, method, sharing=sharing)
    tiled = _terms(combos, method, sharing=sharing, tiled_above=0)
    assert whole == pytest.approx(tiled, rel=1e-5)
    alone = _terms(combos, method)
    if shares:  # Fewer negatives.
      assert all(whole[name] < alone[name] for name in alone)
