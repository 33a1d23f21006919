"""Tests of pcl_jax.losses.loss_terms."""

from fractions import Fraction
import functools
import itertools

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcl_jax.data import catalogues
from pcl_jax.data import strategies
from pcl_jax.losses import loss_terms
from pcl_jax.losses import nt_xent
from pcl_jax.training import train_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

A_P, A_G, G_P = ["audio", "cf"], ["audio", "genre_w2v"], ["cf", "genre_w2v"]
SS = ["audio", "audio_self"]
CODES, ROWS = 6, 8


def _projections() -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {
    mode: jnp.asarray(rng.standard_normal((ROWS, 5)), np.float32)
    for mode in ("audio", "cf", "genre_w2v")
  }


def _tags() -> jax.Array:
  tags = np.random.default_rng(1).integers(0, CODES + 1, (ROWS, 3))
  return jnp.asarray(tags, np.int32)


@functools.cache
def _compiled(strategy, tiled_above):
  contrast = functools.partial(
    nt_xent.nt_xent,
    temperature=0.1,
    mesh=train_step.make_mesh(jax.devices()[:1]),
    tiled_above=tiled_above,
    tile=4,
  )
  return jax.jit(
    lambda projections, tags, excluded: loss_terms.loss_terms(
      strategy,
      projections,
      tags,
      num_codes=CODES,
      contrast=contrast,
      excluded=excluded,
    )
  )


def _terms(combos, method, excluded=None, tiled_above=99) -> dict[str, float]:
  compute = _compiled(strategies.parse(combos, method), tiled_above)
  found = compute(_projections(), _tags(), excluded)
  return {name: float(value) for name, value in found.items()}


def test_terms_are_named_as_published_and_add_up():
  assert _terms([SS], "").keys() == {"audio+audio_self", "total"}
  everything = _terms([A_P, A_G, G_P], "Playlist")
  assert everything.keys() == {
    "audio+cf",
    "audio+genre_w2v",
    "cf+genre_w2v",
    "audio_Playlist_CO",
    "total",
  }
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
  parts = cross | intra | {"total": hybrid["total"]}
  assert hybrid == pytest.approx(parts, rel=1e-6)


def test_cross_modal_terms_run_over_all_rows_audio_terms_over_the_halves():
  @jax.jit
  def terms(x, tags):
    a, p = x["audio"][: ROWS // 2], x["audio"][ROWS // 2 :]
    loss = functools.partial(nt_xent.nt_xent, temperature=0.1)
    return {
      "audio+cf": loss(x["audio"], x["cf"]),
      "cf+genre_w2v": loss(x["cf"], x["genre_w2v"]),
      "audio_Artist_CO": loss(a, p),
      "audio_Genre_CO": loss(a, p, loss_terms.shared_genres(tags, CODES)),
      "audio+audio_self": loss(a, p),
    }

  expected = terms(_projections(), _tags())
  found = _terms([SS], "") | _terms([A_P, G_P], "Artist") | _terms([], "Genre")
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6)
  alone = expected["audio_Artist_CO"]
  assert abs(float(expected["audio_Genre_CO"] - alone)) > 0.01


def test_the_order_of_modes_in_a_pair_does_not_change_the_loss():
  totals = [
    _terms([list(order)], "")["total"] for order in itertools.permutations(A_P)
  ]
  assert totals[0] == totals[1]


def test_terms_do_not_depend_on_whether_all_pairs_are_held_at_once():
  # Songs 0 and 2 stand in a list, 1, 4 and 5 in another.
  entries = np.full((2, 16), ROWS, np.int32)
  entries[:, :5] = [[0, 2, 1, 4, 5], [0, 0, 1, 1, 1]]
  excluded = loss_terms.shared_lists(jnp.asarray(entries), ROWS)
  whole = _terms([A_P], "Genre", excluded)
  tiled = _terms([A_P], "Genre", excluded, tiled_above=0)
  assert whole == pytest.approx(tiled, rel=1e-5)
  for combos, method in (([A_P], "Genre"), ([SS], "")):  # Fewer negatives.
    without = _terms(combos, method, excluded)
    assert all(without[k] < v for k, v in _terms(combos, method).items())


def _published(first, second, songs, weights=None):
  """Computes NT-Xent in float64, row by row, by the numbers of the songs.

  A row has no negative of its own song.
  """
  z = np.concatenate([first, second]).astype(np.float64)
  z /= np.linalg.norm(z, axis=1, keepdims=True)
  s = np.exp(z @ z.T / 0.1)
  losses = []
  for i in range(len(z)):
    partner = (i + len(first)) % len(z)
    others = [j for j in range(len(z)) if j != i]
    w = {j: float(j == partner) for j in others}
    if weights is not None:
      scale = sum(weights[i][j] for j in others) or 1
      w = {j: float(weights[i][j] / scale) for j in others}
    kept = [j for j in others if w[j] or songs[j] != songs[i]]
    attracted = sum(w[j] * np.log(s[i, j] + 1e-5) for j in others)
    losses.append(
      np.log(s[i, kept].sum()) - attracted if any(w.values()) else 0
    )
  return np.mean(losses)


# Songs 3 and 5 have two pairs each, one of them with one another.
SONGS = np.array([3, 1, 5, 3, 5, 2, 7, 0], np.int32)


@pytest.mark.parametrize(
  "tiled_above", [99, pytest.param(0, marks=pytest.mark.long)]
)
def test_a_song_that_is_twice_in_a_batch_is_no_negative_of_itself(tiled_above):
  excluded = loss_terms.NoNegatives(songs=jnp.asarray(SONGS))
  x = {mode: np.asarray(z) for mode, z in _projections().items()}
  halves = x["audio"][: ROWS // 2], x["audio"][ROWS // 2 :]
  weights = _weights_by_sets([set(row.tolist()) - {0} for row in _tags()])
  expected = {
    "audio+cf": _published(x["audio"], x["cf"], np.tile(SONGS, 2)),
    "audio_Artist_CO": _published(*halves, SONGS),
    "audio_Genre_CO": _published(*halves, SONGS, weights),
  }
  found = _terms([A_P], "Artist", excluded, tiled_above)
  found |= _terms([], "Genre", excluded, tiled_above)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5)
  before = _terms([A_P], "Artist", tiled_above=tiled_above)
  for name in ("audio+cf", "audio_Artist_CO"):
    assert found[name] < before[name] - 1e-3


@pytest.mark.parametrize("tiled_above", [99, 0])
def test_songs_that_are_all_different_change_no_loss(tiled_above):
  excluded = loss_terms.NoNegatives(songs=jnp.arange(ROWS))
  for combos, method in (([A_P], "Artist"), ([], "Genre")):
    with_songs = _terms(combos, method, excluded, tiled_above)
    assert with_songs == _terms(combos, method, tiled_above=tiled_above)


def test_rows_of_one_song_and_rows_that_share_a_list_are_no_negatives():
  entries = np.array([[0, 1, ROWS, ROWS], [0, 0, 0, 0]], np.int32)
  shared = loss_terms.shared_lists(jnp.asarray(entries), ROWS)
  both = loss_terms.NoNegatives(jnp.asarray(SONGS), shared)
  flags = np.array(both.tile(both))
  np.fill_diagonal(flags, False)
  expected = {(0, 1), (1, 0), (0, 3), (3, 0), (2, 4), (4, 2)}
  assert set(map(tuple, np.argwhere(flags).tolist())) == expected


def _flags(pairs) -> set[tuple[int, int]]:
  flags = np.triu(np.asarray(pairs.tile(pairs)), 1)
  return set(map(tuple, np.argwhere(flags).tolist()))


def test_all_positives_are_partners_and_other_songs_of_a_list():
  # Songs 3, 1, 5 and 3, 5, 2, 7, 0; rows 0, 3, 4 and 6 stand in one list.
  sets = np.zeros((ROWS, 2), bool)
  sets[[0, 3, 4, 6], 0] = True
  sets[5, 1] = True
  shared = loss_terms.Shared(jnp.asarray(sets))
  strategy = strategies.parse([A_P], "Artist")
  found = loss_terms.all_positives(strategy, ROWS, jnp.asarray(SONGS), shared)
  partners = {(0, 4), (1, 5), (2, 6), (3, 7)}
  # Rows 0 and 3 are of one song.
  assert _flags(found) == partners | {(0, 6), (3, 4), (3, 6), (4, 6)}


def test_all_positives_of_ss_are_the_rows_of_one_song():
  strategy = strategies.parse([SS], "")
  songs = jnp.array([4, 2, 4, 9, 4, 2, 4, 9])
  found = loss_terms.all_positives(strategy, ROWS, songs, None)
  expected = {(0, 2), (0, 4), (0, 6), (2, 4), (2, 6), (4, 6), (1, 5), (3, 7)}
  assert _flags(found) == expected
  assert loss_terms.all_positives(strategy, ROWS, None, None) is None


def test_lists_of_several_kinds_leave_out_the_pairs_of_each():
  first, second = (
    loss_terms.Shared(jnp.eye(ROWS, dtype=bool)[:, :1].at[row].set(True))
    for row in (2, 5)
  )
  found = loss_terms.no_negatives(None, [first, second])
  assert _flags(found) == {(0, 2), (0, 5)}
  assert loss_terms.no_negatives(None, []) is None


@pytest.mark.long
@pytest.mark.parametrize("combos, method", [([A_P], "Genre"), ([SS], "")])
def test_all_positives_enter_the_terms_of_audio_and_audio_alone(combos, method):
  songs = jnp.asarray(SONGS)
  shared = loss_terms.Shared(jnp.ones((ROWS, 1), bool))
  strategy = strategies.parse(combos, method)
  positives = loss_terms.all_positives(strategy, ROWS, songs, shared)
  excluded = loss_terms.no_negatives(songs, [shared])
  terms = loss_terms.loss_terms(
    strategy,
    _projections(),
    _tags(),
    num_codes=CODES,
    contrast=functools.partial(nt_xent.nt_xent, temperature=0.1),
    excluded=excluded,
    positives=positives,
  )
  audio = _projections()["audio"]
  alone = nt_xent.nt_xent(
    audio[: ROWS // 2],
    audio[ROWS // 2 :],
    positives,
    excluded,
    temperature=0.1,
    rivals=False,
  )
  name = f"audio_{method}_CO" if method else "audio+audio_self"
  np.testing.assert_allclose(terms.pop(name), alone, rtol=1e-5)
  without = _terms(combos, "", excluded) if method else {}
  for other in terms.keys() - {"total"}:
    np.testing.assert_allclose(terms[other], without[other], atol=1e-6)


def _weights_by_sets(sets: list[set[int]]) -> list[list[Fraction]]:
  """Computes the weights exactly, from python sets."""
  return [
    [
      Fraction(len(one & other), max(1, len(one) + len(other)))
      for other in sets
    ]
    for one in sets
  ]


@settings(deadline=None, max_examples=25)
@given(
  st.lists(
    st.sets(st.integers(1, CODES), max_size=4), min_size=ROWS, max_size=ROWS
  ),
  st.randoms(),
)
def test_genre_weights_are_those_of_sets_in_any_order_with_any_repeats(
  sets, random
):
  tags = np.zeros((ROWS, 5), np.int32)
  for row, codes in zip(tags, sets, strict=True):
    row[: len(codes)] = sorted(codes)
    row[4] = row[0]  # Twice, which counts once.
    random.shuffle(row)
  found = _genre_weights(tags)
  expected = np.array(_weights_by_sets(sets), np.float64)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_array_equal(found > 0, expected > 0)


@jax.jit
def _genre_weights(tags):
  genres = loss_terms.shared_genres(tags, CODES)
  return genres.tile(genres)
