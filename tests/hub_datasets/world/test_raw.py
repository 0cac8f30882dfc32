import csv
import json
from collections import Counter

from gve.hub_datasets.world.raw import TITLE_KINDS, raw_videos, write_raw_videos, write_titles
from gve.hub_datasets.world.spec import COLORS, SCENES

SCENE_OF = {scene: scene for scene in SCENES} | {"dunes": "desert", "waves": "ocean", "trees": "forest"}
SCENE_OF |= {"windows": "city", "stars": "night", "sky": "night", "snowy field": "snow", "grass": "meadow"}
SCENE_OF |= {"lava": "volcano"}


def true_of(video):
    colors = {color for color in COLORS if color in video.title.replace("green grass", "grass").split()}
    scenes = {scene for words, scene in SCENE_OF.items() if video.title.endswith(words)}
    return colors <= {thing.color for thing in video.clip.things} and scenes == {video.clip.scene}


def test_titles_are_right_or_wrong_as_the_truth_says_and_duplicates_point_at_an_earlier_file():
    videos = raw_videos(400, 0)
    for video in videos:
        if video.kind != "vague":
            assert true_of(video) == video.correct
    shares = Counter(video.kind for video in videos)
    assert all(abs(shares[kind] / 400 - share) < 0.07 for kind, share in TITLE_KINDS.items())
    originals = {video.file: video.clip for video in videos}
    for video in (video for video in videos if video.kind == "duplicate"):
        assert video.original < video.file and originals[video.original] == video.clip


def test_files(tmp_path):
    write_raw_videos(tmp_path, 12, 0, 0, 12)
    write_titles(tmp_path, 12, 0)
    with (tmp_path / "titles.csv").open(newline="") as file:
        titles = list(csv.DictReader(file))
    truth = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert [row["file"] for row in titles] == sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert [row["title"] for row in titles] == [row["title"] for row in truth]
    assert all(row["correct"] == (row["kind"] in ("plain", "duplicate")) for row in truth)
