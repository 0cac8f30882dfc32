import shutil

import pytest
from synth_stages import Colours

from gve.hub_datasets.vsynflow.config import make_config, make_flow
from gve.hub_datasets.vsynflow.encoders import encoder_name, folder_digest, make_encoder
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.stages import SetupError


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


@pytest.mark.parametrize("place", ["module", "module:", ":function", "module:function:"])
def test_wrong_names(place):
    with pytest.raises(SetupError, match="encoder must be module:function"):
        encoder_name(place)


def test_an_encoder_that_cannot_be_imported():
    with pytest.raises(SetupError, match="cannot be imported"):
        make_encoder("gve.nothing:here")


def test_the_gate_refuses_fingerprints_of_another_encoder(tmp_path):
    path = tmp_path / "f.safetensors"
    Fingerprints("n", encoder="other:model:123").save(path)
    for encoder in (None, "synth_stages:Colours"):
        with pytest.raises(SetupError, match="own, other:model:123"):
            make_flow(make_config({"encoder": encoder, "fingerprints": str(path)}))
    Fingerprints("n", encoder="synth_stages:Colours").save(path)
    flow = make_flow(make_config({"encoder": "synth_stages:Colours", "fingerprints": str(path)}))
    (gate,) = (stage for stage in flow.stages if stage.name == "decontamination")
    assert gate.params["encoder"] == "synth_stages:Colours" and gate.limits["most_video_similarity"] == 0.95
    world = make_flow(make_config({"profile": "world", "encoder": "synth_stages:Colours", "fingerprints": str(path)}))
    assert world.describe()["stages"]["decontamination"]["limits"]["most_video_similarity"] == 0.995
