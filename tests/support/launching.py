"""Runs launch.py in a process of its own, with steps that compile quickly."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
# What follows `python -c`; the flags follow that.
PROGRAM = f"""
import runpy, sys
from pcl_jax.models import audio_encoder
from tests.support import quick_backbone
audio_encoder.BACKBONES[quick_backbone.NAME] = quick_backbone.QuickBackbone
sys.argv[0] = {os.fspath(ROOT / "launch.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
