"""Tests of pcl_jax.training.run_sizes."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from pcl_jax.data import catalogues
from pcl_jax.data import song_store
from pcl_jax.training import run_sizes


def _choose(songs, patches, accelerated=False):
  return run_sizes.choose(run_sizes.Library(songs, patches), accelerated)


@pytest.mark.parametrize(
  "songs, hours, accelerated, expected",
  [
    (2, 0.01, False, (2, 16, 300)),
    (40, 2.0, False, (8, 16, 1099)),
    (419, 22.0, False, (64, 16, 1511)),
    (419, 22.0, True, (64, 64, 1511)),
    (50_000, 3_000.0, False, (64, 16, 2_000)),
    (50_000, 3_000.0, True, (256, 64, 20_000)),
  ],
)
def test_the_rule_by_examples(songs, hours, accelerated, expected):
  sizes = _choose(songs, round(hours * 3600 / 4.096), accelerated)
  assert (sizes.batch_size, sizes.width, sizes.steps) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 10**6), st.integers(0, 10**8), st.booleans())
def test_any_library_has_a_batch_it_can_fill_and_bounded_steps(
  songs, patches, accelerated
):
  sizes = _choose(songs, patches, accelerated)
  most_items, most_steps = (256, 20_000) if accelerated else (64, 2_000)
  size = sizes.batch_size
  assert 2 <= size <= most_items and size & (size - 1) == 0
  assert size <= max(songs // 2, 2)  # So many pairs there are.
  assert 300 <= sizes.steps <= most_steps
  every = run_sizes.round_of(sizes.steps)
  assert 1 <= every <= sizes.steps
  assert run_sizes.warmup_of(sizes.steps) < sizes.steps
  more = _choose(songs, 2 * patches + 1, accelerated)
  assert more.steps >= sizes.steps and more.batch_size == size


def test_more_cores_take_less_time_and_more_steps_more():
  sizes = _choose(419, 20_000)
  assert sizes.estimate_s(1) == 2 * sizes.estimate_s(2) > 0
  # Two patches of each pair.
  assert sizes.estimate_s(1) > 2 * 64 * sizes.steps * 1e-3
  assert sizes.estimate_s(64) == sizes.estimate_s(8)


@pytest.mark.parametrize("method", ["", *catalogues.PAIR_METHODS])
def test_a_library_is_its_training_songs_that_can_be_drawn(data_dir, method):
  made = catalogues.load(data_dir)
  train = made.split == catalogues.TRAIN
  frames = song_store.SongStore(data_dir / song_store.FILE_NAME).frames
  library = run_sizes.library_of(data_dir, method)
  drawn = np.flatnonzero(train)
  if method:
    lists = made.pair_lists(method)
    sets = [set(lists[i].tolist()) & set(drawn) for i in range(len(lists))]
    drawn = set().union(*(one for one in sets if len(one) > 1))
  assert library.songs == len(drawn)
  assert library.patches == frames[train].sum() // 256
  # However long songs are that are not trained on.
  assert frames[~train].sum() > 0


def test_a_folder_without_a_data_set_gives_the_smallest_run(tmp_path):
  library = run_sizes.library_of(tmp_path / "nothing", "Artist")
  assert library == run_sizes.Library(0, 0)
  assert _choose(0, 0).batch_size == 2


def test_no_accelerator_is_guessed_where_jax_is_told_to_use_the_cpu(
  monkeypatch,
):
  monkeypatch.setattr(run_sizes.importlib.util, "find_spec", lambda _: True)
  monkeypatch.setattr(run_sizes.os.path, "exists", lambda _: True)
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  assert run_sizes.is_accelerated()
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert not run_sizes.is_accelerated()
