"""From a UVRB folder to fingerprints in one command."""

import json
from pathlib import Path

import numpy as np
import pytest
from uvrb_folder import make_tables, write_uvrb

from gve.hub_datasets.vsynflow.encoders import encoder_name
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.vsynflow.uvrb_items import uvrb_items
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes

COUNT = 12


def test_each_medium_comes_once_and_all_texts_come(tmp_path):
    names = ("MSRVTT", "MSRVTT-I2V", "MS-TV")
    folder, scratch = write_uvrb(tmp_path / "uvrb", {name: make_tables(name) for name in names}), tmp_path / "s"
    scratch.mkdir()
    videos, images, texts = [], [], set()
    for item in uvrb_items(str(folder), scratch, sets=names):
        texts |= set(item["texts"])
        if item["video"]:
            videos.append(Path(item["video"]["path"]).read_bytes())  # it is gone at the next one
        if item.get("image"):
            images.append(item["image"].read_bytes())
    assert sorted(videos) == sorted(f"clip {number}".encode() for number in range(COUNT))
    assert len(images) == len(set(images)) == COUNT
    assert texts == {f"clip {number}" for number in range(COUNT)}
    assert not list(scratch.iterdir())
    with pytest.raises(ValueError, match="source: cannot read split 'seen'"):
        list(uvrb_items(str(folder), scratch, sets=["MSRVTT"], splits=["seen"]))


def test_fingerprints_of_a_folder_in_one_command(tmp_path, capsys):
    tables = make_tables("MSRVTT", 3)
    rng = np.random.default_rng(0)
    for row in tables["corpus"]:
        row["video"]["bytes"] = video_bytes((sample_clip(rng, "unseen"),))
    folder, out = write_uvrb(tmp_path / "uvrb", {"MSRVTT": tables}), tmp_path / "marks.safetensors"
    place = "synth_stages:Colours"
    arguments = [str(out), str(folder), "--kind", "uvrb", "--sets", "MSRVTT", "--name", "mini", "--hash-frames", "4"]
    assert main(["fingerprint", *arguments, "--encoder", place, "--frames", "3"]) == 0
    found, known = json.loads(capsys.readouterr().out), Fingerprints.load(out)
    assert (known.name, known.encoder, known.num_frames) == ("mini", encoder_name(place), 3)
    assert found == {**known.counts(), "encoder": known.encoder, "digest": known.digest()}
    assert found["videos"] == 4 * 3 and found["texts"] == 3 and 3 * 2 * 2 <= found["hashes"] <= 3 * 2 * 4
    assert main(["fingerprint", str(out), str(folder), "--kind", "uvrb"]) == 2
    assert "cannot read split 'unseen' of configuration" in capsys.readouterr().err
