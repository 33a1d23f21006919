"""Hybrid: cross-modal terms and pairs of songs together, SC-CNN.

python launch.py --config=configs/hybrid_sc_cnn.py --workdir=runs/hybrid_sc_cnn
python launch.py --config=configs/hybrid_sc_cnn.py:genre+a_p --workdir=runs/h

Arguments: PAIRS+MODES, with PAIRS of playlist, artist, genre, album and MODES
  of a_p, a_g, a_g_p (default playlist+a_g_p); `smoke` alone or after a comma
  for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("hybrid", "sc_cnn", argument)
