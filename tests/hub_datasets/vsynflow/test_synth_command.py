"""The commands of `gve synth`, from raw videos to pairs and from a UVRB folder to fingerprints; encoders by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from synth_stages import Colours
from uvrb_folder import make_tables, write_uvrb

from gve.hub_datasets.vsynflow.config import WORLD, make_config, make_flow
from gve.hub_datasets.vsynflow.encoders import encoder_name, folder_digest, make_encoder
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.vsynflow.uvrb_items import uvrb_items
from gve.hub_datasets.world.raw import write_raw_videos, write_titles
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.video import video_bytes

COUNT = 12


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, 3, 0, COUNT)
    write_titles(folder, COUNT, 3)
    return folder


def table(raw):
    columns = ["--video-column", "file", "--text-column", "title", "--media", str(raw / "videos")]
    return [str(raw / "titles.csv"), "--kind", "manifest", "--licence", "CC0-1.0", *columns]


def call(capsys, *arguments):
    code = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else captured.err


def test_from_videos_to_pairs(raw, tmp_path, capsys):
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    marks = tmp_path / "marks.parquet"
    code, found = call(capsys, "fingerprint", marks, *table(raw), "--name", "world")
    assert code == 0 and found["hashes"] > 0
    config.write_text(yaml.safe_dump({"profile": "world", "captioner": {"kind": "world", "folder": str(raw)}}))
    planned = call(capsys, "plan", run, *table(raw), "--config", config, "--shard-rows", 5)
    assert planned == (0, {"records": 12, "shards": 3, "refused": {}})
    assert call(capsys, "status", run)[1]["done"] == 0
    assert "not finished" in call(capsys, "verify", run)[1]["errors"][0]
    code, found = call(capsys, "run", run, "--engine", "inline", "--quiet")
    assert code == 0 and found["kept"] + found["rejected"] == COUNT and found["kept"] > 5
    assert call(capsys, "verify", run)[1]["errors"] == []
    assert call(capsys, "status", run)[1]["done"] == 3
    code, error = call(capsys, "build", run, tmp_path / "uvrd")
    assert code == 2 and "gate" in error
    code, built = call(capsys, "build", run, tmp_path / "uvrd", "--local")
    assert code == 0 and built["rows"]["t2v"] > 0
    config.write_text(config.read_text() + f"fingerprints: {marks}\n")
    code, found = call(capsys, "retry", run, "--engine", "inline", "--quiet", "--config", config)
    added = ["stage decontamination: added", "stage decontamination_written: added"]
    assert (code, found["changes"], found["kept"]) == (0, added, 0)


def test_what_is_wrong_is_said(raw, tmp_path, capsys):
    code, error = call(capsys, "run", tmp_path / "nothing", "--quiet")
    assert code == 2 and "holds no plan.json" in error
    assert call(capsys, "plan", tmp_path, tmp_path / "absent", "--licence", "x")[0] == 2
    for values, match in (
        ({"sed": 1}, r"config: .*got 'sed'"),
        ({"video": {"side": 1}}, r"video: .*got 'side'"),
        ({"scenes": {"threshold": 27}}, r"scenes: .*got 'threshold'"),
        ({"profile": "big"}, r"profile .*got 'big'"),
        ({"captioner": {}}, r"captioner\.kind must be .*got None"),
    ):
        with pytest.raises(ValueError, match=match):
            make_flow(make_config(values))


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
    arguments = [out, folder, "--kind", "uvrb", "--sets", "MSRVTT", "--name", "mini", "--hash-frames", "4"]
    code, found = call(capsys, "fingerprint", *arguments, "--encoder", place, "--frames", "3")
    known = Fingerprints.load(out)
    assert code == 0
    assert (known.name, known.encoder, known.num_frames) == ("mini", encoder_name(place), 3)
    assert found == {**known.counts(), "encoder": known.encoder, "digest": known.digest()}
    assert found["videos"] == 4 * 3 and found["texts"] == 3 and 3 * 2 * 2 <= found["hashes"] <= 3 * 2 * 4
    code, error = call(capsys, "fingerprint", out, folder, "--kind", "uvrb")
    assert code == 2 and "cannot read split 'unseen' of configuration" in error


def test_encoders_by_name(tmp_path):
    assert isinstance(make_encoder("synth_stages:Colours"), Colours)
    assert make_encoder("synth_stages:Colours:/a:b").folder == "/a:b"
    assert encoder_name("synth_stages:Colours") == "synth_stages:Colours"
    assert encoder_name("synth_stages:Colours:name") == "synth_stages:Colours:name"


def test_a_name_changes_with_the_weights_and_not_with_the_place(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b" / "c"
    first.mkdir()
    (first / "model.safetensors").write_bytes(bytes(200_000))
    (first / "config.json").write_text("{}")
    (first / "README.md").write_text("words")
    shutil.copytree(first, second)
    (second / "README.md").write_text("other words")
    assert encoder_name(f"m:f:{first}") == encoder_name(f"m:f:{second}") == f"m:f:{folder_digest(first)}"
    (second / "model.safetensors").write_bytes(bytes(199_999) + b"1")
    assert folder_digest(first) != folder_digest(second)


@pytest.mark.parametrize(
    ("place", "match"),
    [
        *dict.fromkeys(("module", "module:", ":function", "module:function:"), "must be module:function").items(),
        ("gve.nothing:here", "cannot be imported"),
    ],
)
def test_wrong_names(place, match):
    with pytest.raises(SetupError, match=match):
        make_encoder(place)


def test_a_config_with_an_encoder_scores_consistency():
    values = {"profile": "world", "encoder": "synth_stages:Colours", "video": {"least_side": 40}}
    stages = {stage.name: stage for stage in make_flow(make_config(values)).stages}
    assert list(stages)[-2:] == ["similarity", "consistency"]
    limits = stages["integrity"].accepted
    assert (limits.least_side, limits.least_frames) == (40, WORLD["video"]["least_frames"])


def test_the_gate_refuses_fingerprints_of_another_encoder(tmp_path):
    path = tmp_path / "f.safetensors"
    Fingerprints("n", encoder="other:model:123").save(path)
    for encoder in (None, "synth_stages:Colours"):
        with pytest.raises(SetupError, match="own, other:model:123"):
            make_flow(make_config({"encoder": encoder, "fingerprints": str(path)}))
    Fingerprints("n", encoder="synth_stages:Colours").save(path)
    values = {"profile": "world", "encoder": "synth_stages:Colours", "fingerprints": str(path)}
    (gate,) = (stage for stage in make_flow(make_config(values)).stages if stage.name == "decontamination")
    assert gate.params["encoder"] == "synth_stages:Colours"
    assert gate.limits["most_video_similarity"] == WORLD["most_video_similarity"]
