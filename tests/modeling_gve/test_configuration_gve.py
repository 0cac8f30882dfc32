import json

import pytest
from transformers import AutoConfig, Qwen2_5_VLConfig

from gve import GVEConfig
from gve.configuration_gve import drop_foreign_code


def test_round_trip(model, tmp_path):
    model.config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is GVEConfig and again.model_type == "gve"
    assert (again.position_mode, again.normalize) == ("mrope", True)
    assert again.text_config.rope_parameters == model.config.text_config.rope_parameters
    Qwen2_5_VLConfig().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is Qwen2_5_VLConfig  # stock ones stay stock


def test_impossible_values_are_refused(model, tmp_path):
    fields = model.config.to_dict()
    for name, value, accepted in (
        ("position_mode", "1d", "mrope, stock, sequential"),
        ("truncate_dim", 0, "1 to 128"),
        ("truncate_dim", 129, "1 to 128"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**fields, name: value}))
        with pytest.raises(Exception, match=f"{name}: got '?{value}'?; accepted are {accepted}"):
            GVEConfig(**{**fields, name: value})
        with pytest.raises(Exception, match=f"{name}: got '?{value}'?; accepted are {accepted}"):
            AutoConfig.from_pretrained(tmp_path)
    assert GVEConfig(**{**fields, "truncate_dim": 128}).truncate_dim == 128


def test_only_our_own_code_stays_named():
    own = {"AutoConfig": "user/repo--configuration_gve.GVEConfig", "AutoModel": "modeling_gve.GVEModel"}
    assert GVEConfig(auto_map=own).auto_map == own
    for foreign in ({"AutoModel": "theirs.Model"}, {"AutoConfig": "theirs.Config"}, {}, None):
        assert "auto_map" not in GVEConfig(auto_map=foreign).to_dict()
    assert drop_foreign_code({"a": 1}, "GVEConfig") == {"a": 1}
