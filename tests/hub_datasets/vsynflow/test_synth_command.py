import json

import numpy as np
import pytest
import yaml

from gve.hub_datasets.vsynflow.config import make_config, make_flow
from gve.hub_datasets.vsynflow.synth_command import main
from gve.hub_datasets.world.raw import write_raw_videos, write_titles

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
    assert code == 0
    assert found["hashes"] > 0
    config.write_text(yaml.safe_dump({"profile": "world", "captioner": {"kind": "world", "folder": str(raw)}}))
    assert call(capsys, "plan", run, *table(raw), "--config", config, "--shard-rows", 5) == (
        0,
        {"records": 12, "shards": 3},
    )
    assert call(capsys, "status", run)[1]["done"] == 0
    assert "not finished" in call(capsys, "verify", run)[1]["errors"][0]
    code, found = call(capsys, "run", run, "--engine", "inline", "--quiet")
    assert code == 0
    assert found["kept"] + found["rejected"] == COUNT
    assert found["kept"] > 5
    assert call(capsys, "verify", run)[1]["errors"] == []
    assert call(capsys, "status", run)[1]["done"] == 3
    code, error = call(capsys, "build", run, tmp_path / "uvrd")
    assert code == 2
    assert "gate" in error
    code, built = call(capsys, "build", run, tmp_path / "uvrd", "--local")
    assert code == 0
    assert built["rows"]["t2v"] > 0
    config.write_text(config.read_text() + f"fingerprints: {marks}\n")
    code, found = call(capsys, "retry", run, "--engine", "inline", "--quiet", "--config", config)
    assert code == 0
    assert found["changes"] == ["stage decontamination: added"]
    assert found["kept"] == 0


def test_what_is_wrong_is_said(raw, tmp_path, capsys):
    code, error = call(capsys, "run", tmp_path / "nothing", "--quiet")
    assert code == 2
    assert "holds no plan.json" in error
    assert call(capsys, "plan", tmp_path, tmp_path / "absent", "--licence", "x")[0] == 2
    with pytest.raises(ValueError, match=r"config: .*got 'sed'"):
        make_config({"sed": 1})
    with pytest.raises(ValueError, match=r"video: .*got 'side'"):
        make_config({"video": {"side": 1}})
    with pytest.raises(ValueError, match=r"profile .*got 'big'"):
        make_config({"profile": "big"})
    with pytest.raises(ValueError, match=r"captioner\.kind must be .*got None"):
        make_flow(make_config({"captioner": {}}))


class Colours:
    def encode_query(self, inputs, **options):
        return np.ones((len(inputs), 3))

    def encode_document(self, inputs, **options):
        return np.array(
            [np.mean([np.asarray(frame).mean(axis=(0, 1)) for frame in item["video"]], axis=0) for item in inputs]
        )


def test_a_config_with_an_encoder_scores_consistency():
    flow = make_flow(
        make_config({"profile": "world", "encoder": "test_synth_command:Colours", "video": {"least_side": 40}})
    )
    names = [stage.name for stage in flow.stages]
    assert names[-2:] == ["similarity", "consistency"]
    integrity = next(stage for stage in flow.stages if stage.name == "integrity")
    assert (integrity.accepted.least_side, integrity.accepted.least_frames) == (40, 8)
