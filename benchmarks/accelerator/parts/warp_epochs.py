"""Seconds of an epoch of the playlist vectors, by WARP."""

import time

import jax

from benchmarks import warp as comparison
from benchmarks.accelerator import part_context
from preprocessing.vectors import warp

_EPOCHS = 3


def measure(context: part_context.Context) -> None:
  """Times epochs with the number of lanes that is chosen, and with more."""
  playlists, songs = (300, 800) if context.tiny else (20_000, 50_000)
  drawn = comparison.draw_playlists(playlists, songs, min(300, songs // 40))
  train, _ = comparison.hold_out(drawn, 0)
  entries = warp.Entries.from_pairs(train[:, 0], train[:, 1])
  for lanes in (None, 256) if not context.tiny else (None,):
    trainer = warp.Trainer(
      entries, max_negatives=40, rate=0.05, seed=0, lanes=lanes
    )
    factors = warp.random_factors(entries.num_songs, 300, 0)
    tables = warp.first_tables(entries, factors, [0, 1])
    for epoch in range(_EPOCHS):
      label = f"{len(entries)} entries, {trainer.lanes} lanes, epoch {epoch}"
      if not context.has(5, label):
        return
      begin = time.perf_counter()
      tables, loss = trainer.run_epoch(tables, epoch)
      jax.block_until_ready(tables)
      seconds = time.perf_counter() - begin
      context.record(label, seconds=seconds, loss=float(loss))
