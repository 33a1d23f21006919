"""A-IM: pairs of songs that share a playlist, artist, genre or album, SC-CNN.

python launch.py --config=configs/aim_sc_cnn.py --workdir=runs/aim_sc_cnn
python launch.py --config=configs/aim_sc_cnn.py:artist --workdir=runs/aim

Arguments: playlist (default), artist, genre, album; `smoke` alone or after a
  comma for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("aim", "sc_cnn", argument)
