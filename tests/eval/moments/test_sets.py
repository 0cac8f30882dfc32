"""Annotations of QVHighlights and MomentSeeker as their authors publish them, on stand-in videos."""

import json

import pytest

from gve.eval.moments.sets import load_moments

QVHIGHLIGHTS = {
    "qid": 8737,
    "query": "A family is playing basketball together on a green court outside.",
    "duration": 126,
    "vid": "bP5KfdFJzC4_660.0_810.0",
    "relevant_windows": [[0, 16]],
    "relevant_clip_ids": [0, 1],
    "saliency_scores": [[4, 1, 1], [4, 1, 1]],
}
SEEKER = {
    "qry_text": "the same woman waves",
    "qry_img_path": "./query_images/q1.jpg",
    "qry_video_path": "",
    "src_video_path": "./videos/ego_79.mp4",
    "task": "Action Recognition",
    "answering_time_interval": [[10.0, 25.5], [80.0, 95.0]],
}


@pytest.fixture
def folder(tmp_path):
    for name in ("videos/bP5KfdFJzC4_660.0_810.0.mkv", "videos/ego_79.mp4", "query_images/q1.jpg", "clip.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"stand-in")
    return tmp_path


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_qvhighlights(folder):
    file = write(folder / "highlight_val_release.jsonl", QVHIGHLIGHTS)
    (one,) = load_moments(file)
    (query,) = one.queries
    assert (one.name, one.kind, query.row) == ("highlight_val_release", ("text",), {"text": QVHIGHLIGHTS["query"]})
    assert query.video == folder / "videos" / "bP5KfdFJzC4_660.0_810.0.mkv"  # its name has dots
    assert query.truth == ((0, 16),)
    assert one.instruction == "Find the clip that corresponds to the described scene in the given video."


def test_momentseeker_lists_and_mixed_kinds(folder):
    text = {**SEEKER, "qry_img_path": ""}
    video = {**SEEKER, "qry_img_path": "", "qry_video_path": "clip.mp4"}
    (folder / "ti2v.json").write_text(json.dumps([SEEKER]))
    (folder / "mixed.json").write_text(json.dumps([text, video, text]))
    sets = {one.name: one for one in load_moments(folder)}
    assert list(sets) == ["mixed text", "mixed text+video", "ti2v"]
    assert len(sets["mixed text"].queries) == 2
    (query,) = sets["ti2v"].queries
    assert query.row == {"text": "the same woman waves", "image": str(folder / "query_images" / "q1.jpg")}
    assert query.video == folder / "videos" / "ego_79.mp4" and query.truth == ((10.0, 25.5), (80.0, 95.0))
    assert sets["ti2v"].instruction.endswith("the given text and the given image.")
    assert sets["mixed text+video"].queries[0].row["video"] == str(folder / "clip.mp4")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**QVHIGHLIGHTS, "relevant_windows": None}], "row 1: has no relevant_windows, as in a test split"),
        ([QVHIGHLIGHTS, {**QVHIGHLIGHTS, "relevant_windows": [[5, 5]]}], "row 2: relevant_windows must be"),
        ([{**QVHIGHLIGHTS, "relevant_windows": [[float("nan"), 5]]}], r"must be \[start, end\] pairs"),
        ([{**QVHIGHLIGHTS, "relevant_windows": []}], r"must be \[start, end\] pairs"),
        ([{**QVHIGHLIGHTS, "relevant_windows": 5}], r"must be \[start, end\] pairs"),
        ([{**QVHIGHLIGHTS, "query": ""}], r"row 1: needs a query \(query, image, video\) and vid"),
        ([{**QVHIGHLIGHTS, "vid": 7}], "row 1: needs a query"),
        ([{"caption": "a dog"}], r"row 1: has the keys \['caption'\], of no known format \(QVHighlights"),
        ([{**QVHIGHLIGHTS, "vid": "gone"}], r"1 of 1 media files of .* are missing, such as .*gone"),
        ([[1, 2]], "must hold objects"),
        ([], "must hold objects, at least one"),
    ],
)
def test_broken_annotations_are_named(folder, rows, message):
    file = write(folder / "rows.jsonl", *rows)
    with pytest.raises(ValueError, match=message):
        load_moments(file)


def test_no_annotations_and_no_json(folder):
    with pytest.raises(ValueError, match="has no JSON or JSONL file"):
        load_moments(folder / "videos")
    (folder / "half.json").write_text('[{"qid": 1')
    with pytest.raises(ValueError, match=r"half.json' is neither JSON nor JSON lines \(Expecting"):
        load_moments(folder)
