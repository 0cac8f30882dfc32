"""`gve eval` on models of other families: which sets they take, how they see videos, whose prompts they get."""

import json
from importlib.util import find_spec

import numpy as np
import other_models
import pytest
import uvrb_folder
from PIL import Image
from square_clips import COLOURS, frames_of, mp4_of
from uvrb_folder import make_tables, write_uvrb

from gve.eval.eval_command import main
from gve.eval.media_encoder import MediaEncoder
from gve.eval.models import load_encoder
from gve.hub_datasets.uvrb import SETS
from gve.video_gve import read_video

CHOSEN = ("MSRVTT", "MS-TI", "MS-TV", "MSRVTT-I2V", "LoVR-C2V")
CLIPS = [mp4_of(frames_of(colour, speed, speed)) for colour in COLOURS for speed in (1, 2, 3)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Five sets of real videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvrb_folder, "clip_bytes", CLIPS.__getitem__)
        return write_uvrb(tmp_path_factory.mktemp("clips"), {name: make_tables(name) for name in CHOSEN})


def score(model, clips, capsys, *options):
    arguments = ["--model", str(model), "--data", str(clips), "--sets", *(SETS[name].slug for name in CHOSEN)]
    code = main([*arguments, "--json", *options])
    captured = capsys.readouterr()
    return json.loads(captured.out) if code == 0 else captured.err


def test_a_clip_gets_frames_one_by_one(clips, tmp_path, capsys, caplog):
    folder = other_models.clip_model(tmp_path)
    report = score(folder, clips, capsys, "--instructions", "none", "--frames", "3", "--out", str(tmp_path / "out"))
    assert list(report["sets"]) == ["MSRVTT", "MSRVTT-I2V", "LoVR-C2V"]
    assert report["left_out"] == {
        "MS-TI": "the model does not take queries of text and image",
        "MS-TV": "the model does not take queries of text and video",
    }
    assert "MS-TI is not scored: the model does not take" in caplog.text
    assert report["abilities"]["VIS"] and report["abilities"]["CMP"] is report["averages"]["AVG-D"] is None
    assert (report["settings"]["num_frames"], report["settings"]["videos"]) == (3, "frames averaged")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "videos frames averaged" in text and "- MS-TV: the model does not take" in text
    encoder = load_encoder(str(folder))
    frames = [{"image": Image.fromarray(frame)} for frame in read_video(CLIPS[1], 3).frames]
    each = encoder.encode(frames, normalize_embeddings=True)
    (vector,) = MediaEncoder(encoder).encode_document([{"video": CLIPS[1]}], num_frames=3)
    assert np.abs(vector - each.mean(0) / np.linalg.norm(each.mean(0))).max() < 1e-6


def test_a_text_model_takes_none_of_the_sets(clips, tmp_path, capsys):
    folder = other_models.text_model(tmp_path)
    assert "takes none of the sets (MSRVTT, MS-TI, MS-TV, MSRVTT-I2V, LoVR-C2V)" in score(folder, clips, capsys)
    encoder, asked = load_encoder(str(folder)), "find the video"
    apart = MediaEncoder(encoder).encode_query(["clip 1", {"text": "b"}], prompt=asked)
    expected = encoder.encode(["clip 1", "b"], prompt=f"{asked}\n", normalize_embeddings=True)
    assert np.abs(apart - expected).max() < 1e-6


def test_qwen3_vl_takes_all_and_brings_its_prompt(clips, tmp_path, capsys):
    folder = other_models.qwen3_vl(tmp_path)
    for source, instruction in (("model", other_models.PROMPTS["query"]), ("uvrb", SETS["MSRVTT"].instruction)):
        report = score(folder, clips, capsys, "--instructions", source)
        assert tuple(report["sets"]) == CHOSEN and "left_out" not in report
        assert (report["settings"]["instructions"], report["sets"]["MSRVTT"]["instruction"]) == (source, instruction)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="EmbeddingGemma 2's processor needs torchvision")
def test_embedding_gemma2_gets_frames_as_a_video(clips, tmp_path, capsys):
    folder = other_models.embedding_gemma2(tmp_path)
    report = score(folder, clips, capsys, "--instructions", "model", "--frames", "4")
    assert list(report["sets"]) == ["MSRVTT", "MSRVTT-I2V", "LoVR-C2V"]
    assert (report["settings"]["num_frames"], report["settings"]["videos"]) == (4, "frames as a video")
    encoder = MediaEncoder(load_encoder(str(folder)))
    few, more = (encoder.encode_document([{"video": CLIPS[1]}], num_frames=number) for number in (1, 4))
    assert np.abs(few - more).max() > 1e-6


def test_settings_that_a_model_lacks(clips, tmp_path, capsys):
    folder = other_models.clip_model(tmp_path)
    assert "--tokens needs a model of ours" in score(folder, clips, capsys, "--tokens", "8")
    assert "is not an http address" in score(folder, clips, capsys, "--served-images")
