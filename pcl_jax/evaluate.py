"""How good is a trained encoder? Looks up the songs nearest to test songs.

python -m pcl_jax.evaluate --workdir=runs/sample

Each test song is a query, every other song of the data set a candidate; the
precision at 5 tells how many of the five nearest share its sub-genre, or its
artist. Beside the trained encoder stand the same network before training and
the mean of the mel-spectrogram over time.
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
from typing import Any

from absl import logging
from flax import nnx
from jaxtyping import Float
import numpy as np

from pcl_jax import checkpoint
from pcl_jax import embed
from pcl_jax import errors
from pcl_jax.data import catalogue as catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation import retrieval
from pcl_jax.evaluation import statistics
from pcl_jax.models import audio

NEAREST = 5
FILE_NAME = "results.json"


def sub_genres(catalogue: catalogues.Catalogue) -> catalogues.Ragged:
  """Returns the sub-genres of each song: codes that do not end in 00."""
  names = np.concatenate([["00"], catalogue.genre_codes])
  detailed = ~np.char.endswith(names, "00")
  kept = detailed[catalogue.genres.values]
  lengths = np.bincount(
    catalogue.genres.owners()[kept], minlength=len(catalogue)
  )
  offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
  return catalogues.Ragged(catalogue.genres.values[kept], offsets)


def lookup_precisions(
  catalogue: catalogues.Catalogue, embeddings: Float[np.ndarray, "songs d"]
) -> dict[str, Any]:
  """Measures how often the nearest songs share a sub-genre or an artist.

  Args:
    catalogue: of the songs.
    embeddings: of all of them, [songs, d].

  Returns:
    For `sub-genre` and `artist`: the mean precision at 5 over the test songs,
    its 95 % bootstrap interval, and the number of queries, which are the test
    songs that share something with another song.
  """
  queries = catalogue.rows_of(catalogues.TEST)
  candidates = np.arange(len(catalogue), dtype=np.int32)
  scores = retrieval.cosines(embeddings[queries], embeddings)
  itself = queries[:, None] == candidates[None, :]
  lists = {"sub-genre": sub_genres(catalogue), "artist": catalogue.artists}
  results = {}
  for name, values in lists.items():
    relevant = retrieval.share_a_value(values, queries, candidates)
    found = retrieval.precision_at(NEAREST, scores, relevant, itself)
    found = found[~np.isnan(found)]
    if not len(found):
      continue
    low, high = statistics.bootstrap_interval(found)
    results[name] = {
      "precision_at_5": float(found.mean()),
      "interval_95": [low, high],
      "queries": len(found),
    }
  return results


def evaluate(workdir: pathlib.Path, data_dir: str | None) -> dict[str, Any]:
  """Compares a run's best encoder with the baselines.

  Args:
    workdir: of the run.
    data_dir: data set to look up songs in; None for the one it trained on.

  Raises:
    InputError: there is no checkpoint or no data set.
  """
  encoder, meta = checkpoint.load_encoder(workdir)
  untrained = audio.AudioEncoder(
    **meta["architecture"]["audio"], rngs=nnx.Rngs(meta["config"]["seed"])
  )
  data = dataset.DataSet(data_dir or meta["config"]["data"]["dir"])
  songs = np.arange(len(data.store), dtype=np.int32)
  embeddings = {
    f"trained ({meta['strategy']})": embed.embed_songs(
      encoder, data.store, songs
    ),
    "untrained": embed.embed_songs(untrained, data.store, songs),
    "mean mel": embed.mean_mel(data.store, songs),
  }
  table = {
    name: lookup_precisions(data.catalogue, rows)
    for name, rows in embeddings.items()
  }
  if not any(table.values()):
    raise errors.InputError(
      f"{data.directory} has no test song that shares an artist or a sub-genre "
      "with another song: there is nothing to look up. Split it again with a "
      "larger --test_share."
    )
  return {
    "step": meta["progress"]["step"],
    "data": str(data.directory),
    "songs": len(songs),
    "precision_at_5": table,
  }


def in_words(results: dict[str, Any]) -> str:
  """Returns the table that people read."""
  table = results["precision_at_5"]
  columns = list(dict.fromkeys(c for row in table.values() for c in row))
  width = max(map(len, table)) + 2
  queries = {c: row[c]["queries"] for row in table.values() for c in row}
  counts = ", ".join(f"{queries[c]} for {c}" for c in columns)
  lines = [
    f"Precision at {NEAREST}, with 95 % bootstrap intervals. Queries: test "
    f"songs of {results['data']} ({counts});",
    f"candidates: all other {results['songs'] - 1} songs.",
    "",
    " " * width + "".join(f"{c:<24}" for c in columns),
  ]
  for name, row in table.items():
    cells = [
      f"{row[c]['precision_at_5']:.3f}  [{row[c]['interval_95'][0]:.3f}, "
      f"{row[c]['interval_95'][1]:.3f}]"
      for c in columns
    ]
    lines.append(f"{name:<{width}}" + "".join(f"{cell:<24}" for cell in cells))
  return "\n".join(line.rstrip() for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, prints the table, writes results.json."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument(
    "--data", help="data set; the one the run trained on where not given"
  )
  flags = parser.parse_args(argv)
  workdir = pathlib.Path(flags.workdir)
  results = evaluate(workdir, flags.data)
  partial = workdir / f"{FILE_NAME}.partial"
  partial.write_text(json.dumps(results, indent=2) + "\n")
  partial.replace(workdir / FILE_NAME)
  print(in_words(results))
  print(f"\nwritten to {workdir / FILE_NAME}")


if __name__ == "__main__":
  logging.set_verbosity(logging.ERROR)  # Orbax warns of reading only.
  errors.run_command(main)
