import logging
import os

import pytest
from labelled_folder import COLOURS, clip, write_flat, write_folders, write_labels, write_queries
from PIL import Image

from gve.hub_datasets.classification import CLASSIFICATION, load_folder
from gve.hub_datasets.classification.load import label_words
from gve.hub_datasets.uvrb import SETS

TASK = CLASSIFICATION["UCF101"]
ROW = {"video": "clips/Wave.mp4", "candidates": ["a hand waves", "bread is cut"], "answer": 0}


def test_the_table_and_names_of_classes():
    words = {"brush_hair": "brush hair", "ApplyEyeMakeup": "apply eye makeup", "TVWatching": "tv watching"}
    words |= {"playing American football": "playing American football", "cereals": "cereals"}
    words |= {"Putting [something] into [something]": "Putting something into something"}
    assert {name: label_words(name) for name in words} == words
    assert [task.num_classes for task in CLASSIFICATION.values()] == [700, 101, 51, 174, 10]
    assert not set(CLASSIFICATION) & set(SETS)
    for task in CLASSIFICATION.values():
        assert "{label}" in task.template and task.instruction.endswith(".") and task.source.homepage
        assert (task.metric, task.abilities, task.query_modalities) == ("precision@1", (), ("video",))
    assert len({task.instruction for task in (*CLASSIFICATION.values(), *SETS.values())}) == 21


def test_a_folder_for_each_class(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="gve"):
        data = load_folder(write_folders(tmp_path / "ucf"), TASK)
    assert data.corpus_ids == ["BrushHair", "Wave", "cut_bread"]
    assert data.corpus["text"][:] == ["A video of brush hair.", "A video of wave.", "A video of cut bread."]
    assert data.query_ids[:3] == ["BrushHair/0.mp4", "BrushHair/1.mp4", "Wave/0.mp4"]
    video = str(tmp_path / "ucf" / "Wave" / "0.mp4")
    assert data.queries[2] == {"id": "Wave/0.mp4", "text": None, "image": None, "video": video}
    assert [rows.tolist() for rows in data.positives] == [[0], [0], [1], [1], [2], [2]]
    assert data.pools is None and data.num_candidates.tolist() == [3] * 6
    assert "has 3 classes; UCF101 has 101; scores do not compare" in caplog.text


def test_linked_folders_are_followed(tmp_path):
    root, other = write_folders(tmp_path / "ucf"), write_folders(tmp_path / "more", each=1)
    (root / "Wave" / "more").symlink_to(other / "Wave")
    (root / "Juggle").symlink_to(other / "cut_bread")
    assert load_folder(root, TASK).query_ids == [
        *("BrushHair/0.mp4", "BrushHair/1.mp4", "Juggle/0.mp4", "Wave/0.mp4", "Wave/1.mp4", "Wave/more/0.mp4"),
        *("cut_bread/0.mp4", "cut_bread/1.mp4"),
    ]


def test_labels_in_a_file_and_classes_without_videos(tmp_path):
    root = write_flat(tmp_path)
    write_labels(root, [(f"clips/{name}.mp4", name) for name in COLOURS])
    (root / "classes.txt").write_text("\n".join(["juggle", *COLOURS]))
    data = load_folder(root, TASK)
    assert data.corpus_ids == ["juggle", *COLOURS]
    assert [rows.tolist() for rows in data.positives] == [[1], [2], [3]]
    assert data.num_candidates.tolist() == [4, 4, 4]


def test_candidates_of_each_query(tmp_path):
    root = write_flat(tmp_path)
    other = {"video": "clips/cut_bread.mp4", "candidates": ["bread is cut", "a dog runs", "a hand waves"], "answer": 0}
    write_queries(root, [ROW, other, {**ROW, "id": "again", "answer": 1}, {**ROW, "id": 0}])
    data = load_folder(root, TASK)
    assert data.query_ids == ["clips/Wave.mp4", "clips/cut_bread.mp4", "again", "0"]
    assert data.corpus["text"][:] == ["a hand waves", "bread is cut", "a dog runs"]
    assert [pool.tolist() for pool in data.pools] == [[0, 1], [1, 2, 0], [0, 1], [0, 1]]
    assert [rows.tolist() for rows in data.positives] == [[0], [1], [1], [0]]


def test_refuses_folders(tmp_path):
    with pytest.raises(ValueError, match=r"ucf101: got '.*nowhere', which is not a folder"):
        load_folder(tmp_path / "nowhere", TASK)
    with pytest.raises(ValueError, match=r"ucf101: .* has no class with a video; it must have a folder for each"):
        load_folder(tmp_path, TASK)
    root = write_folders(tmp_path / "ucf")
    with pytest.raises(ValueError, match=r"has 3 classes; UCF101 has 101\. Add the missing"):
        load_folder(root, TASK, strict=True)
    (root / "brush_hair").mkdir()
    with pytest.raises(ValueError, match="class 'brush_hair' has no video"):
        load_folder(root, TASK)
    (root / "brush_hair" / "0.mp4").write_bytes(clip(COLOURS["BrushHair"]))
    with pytest.raises(ValueError, match=r"the class that reads 'A video of brush hair\.' appears more than once"):
        load_folder(root, TASK)


def test_videos_are_known_by_what_they_hold(tmp_path):
    root = write_folders(tmp_path, each=1)
    (root / "Wave" / "old.MTS").write_bytes(clip(COLOURS["Wave"]))
    (root / "Wave" / "plain").write_bytes(clip(COLOURS["Wave"]))
    frames = [Image.new("RGB", (32, 32), (80 * number, 0, 0)) for number in range(3)]
    frames[0].save(root / "Wave" / "moves.gif", save_all=True, append_images=frames[1:])
    assert len(load_folder(root, TASK).queries) == 6
    frames[0].save(root / "Wave" / "still.mp4", format="PNG")
    with pytest.raises(ValueError, match=r"still\.mp4 is not a video \("):
        load_folder(root, TASK)
    (root / "Wave" / "still.mp4").unlink()
    for name, content in (("notes.txt", b"red"), ("broken.mp4", b"no video at all"), ("empty.mp4", b"")):
        (root / "Wave" / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a video"):
            load_folder(root, TASK)
        (root / "Wave" / "x.mp4").write_bytes(b"")
        with pytest.raises(ValueError, match="and 1 more such"):
            load_folder(root, TASK)
        for path in (name, "x.mp4"):
            (root / "Wave" / path).unlink()
    name = os.fsdecode(b"caf\xe9.mp4")
    try:
        (root / "Wave" / name).write_bytes(clip(COLOURS["Wave"]))
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(ValueError, match="has a name that is not UTF-8"):
        load_folder(root, TASK)


def test_refuses_labels(tmp_path):
    root = write_flat(tmp_path)
    (root / "classes.txt").write_text("Wave\n")
    for pairs, header, message in (
        ([("clips/Wave.mp4", "Wave")], "file,label", r"labels\.csv must have .*got \['file', 'label'\]"),
        ([("clips/Wave.mp4", "")], "path,label", r"labels\.csv line 2 lacks a path or a label"),
        ([("clips/Wave.mp4", "Sing")], "path,label", "label 'Sing' is not in classes.txt"),
        ([("clips/None.mp4", "Wave")], "path,label", r"clips/None\.mp4 is not a file"),
        ([("clips/Wave.mp4", "Wave")] * 2, "path,label", r"video 'clips/Wave\.mp4' appears more than once"),
        ([], "path,label", "has no class with a video"),
    ):
        write_labels(root, pairs, header)
        with pytest.raises(ValueError, match=message):
            load_folder(root, TASK)


def test_refuses_queries(tmp_path):
    root = write_flat(tmp_path)
    for rows, message in (
        ([ROW | {"answer": 2}], r"queries\.jsonl entry 1: answer must be an index from 0 to 1, got 2"),
        ([ROW | {"answer": True}], "0 to 1, got True"),
        ([ROW | {"candidates": ["one", "one"]}], "a candidate appears twice"),
        ([ROW | {"candidates": "one"}], "must be a list of texts"),
        ([ROW | {"video": 3}], "video must be a path, got 3"),
        ([ROW | {"id": [1]}], r"entry 1: got the id \[1\]"),
        ([ROW | {"video": "clips/None.mp4"}], "is not a file"),
        ([], r"queries\.jsonl is empty"),
        ([{"video": "clips/Wave.mp4"}], "video, candidates and answer are required"),
    ):
        write_queries(root, rows)
        with pytest.raises(ValueError, match=message):
            load_folder(root, TASK)
    (root / "queries.jsonl").write_text("{")
    with pytest.raises(ValueError, match="entry 1: not JSON"):
        load_folder(root, TASK)
    write_labels(root, [])
    with pytest.raises(ValueError, match=r"has queries\.jsonl and labels\.csv; it may have one of them"):
        load_folder(root, TASK)
