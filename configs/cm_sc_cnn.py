"""Strategy CM: audio against playlist and genre vectors, SC-CNN.

python launch.py --config=configs/cm_sc_cnn.py --workdir=runs/cm_sc_cnn
python launch.py --config=configs/cm_sc_cnn.py:a_p --workdir=runs/cm
python launch.py --config=configs/cm_sc_cnn.py:smoke --workdir=runs/smoke

Arguments: a_p (default), a_g, a_g_p; `smoke` alone or after a
  comma runs it on a small sample, on a CPU, in seconds.
Cost: not measured on the full data set.
"""

import ml_collections

from configs import common


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns the paper's values."""
  return common.cross_modal("sc_cnn", argument)
