"""What is kept beside a table so that searching it begins at once.

In TABLE.index lie the unit rows, mapped into memory and never computed again,
and where it was asked for a graph of neighbours. Their names have a hash of the
table: those of another table are not taken.
"""

import pathlib

from jaxtyping import Float
import numpy as np

from pcl_jax.embedding import embedding_table

SUFFIX = ".index"
_HASH = 16  # Characters.
_ROWS = "rows"
_Rows = Float[np.ndarray, "songs d"]


def folder_of(table: pathlib.Path) -> pathlib.Path:
  """Returns where the index of a table lies."""
  return table.with_name(table.name + SUFFIX)


def path_of(
  file: embedding_table.TableFile, kind: str, suffix: str
) -> pathlib.Path:
  """Returns the file of one kind of index, whether it is there or not."""
  name = f"{kind}_{file.digest[:_HASH]}{suffix}"
  return folder_of(file.path) / name
