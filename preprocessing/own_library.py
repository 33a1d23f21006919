r"""Makes a data set from a folder of audio files and playlists.

  python -m preprocessing.own_library --audio=~/music --out=data/mine
  python -m preprocessing.own_library --audio=~/music --out=data/middle \
    --from_s=30 --to_s=60

Songs are the audio files anywhere in the folder, of 30 s or more (--min_s),
whatever their suffix: WAV, FLAC, Ogg, Opus, MP3, AIFF, M4A, AAC, WMA and
others. Names that begin with a dot, and files that are no sound, are passed
over and counted. With --from_s and --to_s, that part of every track is used (in
seconds). Of several channels the mean is taken, or the left or the loudest one
(--channels). Files that cannot be used are left out with the reason. Of files
with the same audio, the first is the song; the others are listed.

Artists are those of the tag ARTISTS, or else of ARTIST, or else of ALBUMARTIST;
`A feat. B` and `A; B` are two, and `A & B` is two where both are artists of the
library by themselves (--split_artists). Files without these tags have the
artist that their folders imply: Artist of Artist/Album/Disc 1/song
(--artist_folder); the command shows them before the work. `Unknown Artist`,
`Various Artists` and the like are no artist (--no_artists). Names that differ
in case, accents' form, spaces, dashes or apostrophes are one. docs/data.md has
the rules.

Genre tags become codes as Melon has them: the n-th name in alphabetical order
is the genre GN<n>00 and the sub-genre GN<n>01 (GN0100 and GN0101 for n = 1).

Playlists are these files anywhere in the folder:
  *.m3u *.m3u8  one path a line
  *.pls         File1=path and so on
  *.csv         a table with columns named playlist and path, in any order,
                separated by comma, semicolon or tab; a row for each song
  *.xspf *.jspf XSPF, and the same as json; the locations of the tracks
A path is absolute, or relative to the playlist's folder or else to --audio, or
a file:// address; '\' and '/' are the same, and so are capitals where only one
song is meant. Text is UTF-8, UTF-16 or Western European.

Besides what training reads, it writes to --out: song_ids.json (path -> id; a
song keeps its id forever), song_files.jsonl (what became of each file),
skipped.json (songs left out and why), kakao_meta/ (Melon's metadata files) and
library.json (counts, duplicates, playlist files that cannot be read or are no
playlists, and every playlist entry that no song was found for).

Interrupted, the same command goes on. Given again after files or playlists were
added, changed or removed, it decodes what is new, copies the rest from the old
data set and makes a new one; the old one stays until the new one is complete.
Known songs keep their part of the split, and only new ones are divided; with
--split_by=album or artist they go where the other songs of theirs are. A run
trained on the old one cannot be continued on the new one. If nothing has
changed, nothing is done. --force decodes everything again, keeping the ids, and
is needed for other settings; where only shares, seed or sizes of vectors are
others, it decodes nothing. Other rules for names and another --min_s need no
--force. What is not given stays as it was, but --from_s and --to_s are to be
given again.
"""

import argparse
from collections.abc import Sequence

from pcl_jax.audio import channel_mix
from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import locks
from pcl_jax.data.splits import song_groups
from preprocessing.library import library_build
from preprocessing.library import library_report
from preprocessing.library import library_settings


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the data set."""
  parser = command_line.parser("preprocessing.own_library", __doc__)
  add = parser.add_argument
  folder = {"type": command_line.path, "required": True}
  add("--audio", **folder, help="folder of audio files and playlists")
  add("--out", **folder, help="the data set's folder")
  add("--to_s", type=float, help="use tracks up to here (their end)")
  text = "decode everything again, or use other settings"
  add("--force", action="store_true", help=text)
  text = "files decoded at once (cores, at most 8)"
  add("--threads", type=command_line.count, help=text)
  add("--from_s", type=float, default=0.0, help="use tracks from here (0)")
  for name, text in {
    "test_share": "share of all songs",
    "validation_share": "share of all songs",
    "dims": "factors of the playlist vectors",
    "genre_dims": "size of the genre vectors",
    "seed": "seed of the split and the vectors",
    "min_s": "leave out tracks that are shorter by more than half a second",
    "split_artists": "split names at '&' and such: known, always or never",
    "artist_folder": "layout, parent, none, or a level from 1",
    "album_folder": "none, or a level from 1: albums where no tag names one",
    "no_artists": "names that are no artist, split at ';'; '+': the known ones",
    "genre_separators": "signs between genres, besides ';'",
    "no_genres": "names that are no genre, as --no_artists",
  }.items():
    default = library_settings.DEFAULTS[name]
    text = f"{text} (as it is in --out; at first {default})"
    add(f"--{name}", type=type(default), help=text)
  text = "what goes to one part as a whole (as it is in --out; at first song)"
  add("--split_by", choices=song_groups.SPLIT_BY, help=text)
  text = "of several: mean, left or loudest (as it is in --out; at first mean)"
  add("--channels", choices=channel_mix.CHOICES, help=text)
  text = "make each album of two songs or more a playlist, too"
  boolean = argparse.BooleanOptionalAction
  add("--albums_as_playlists", action=boolean, default=None, help=text)
  args = vars(parser.parse_args(argv))
  jax_setup.start()  # Not after hours of decoding.
  audio_dir, data_dir = args.pop("audio"), args.pop("out")
  with locks.hold(data_dir, parser.prog):
    report = library_build.build_library(audio_dir, data_dir, **args)
  print(library_report.summary(report, data_dir))


if __name__ == "__main__":
  errors.run_command(main)
