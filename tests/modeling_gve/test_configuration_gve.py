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


def test_unknown_position_mode_is_refused():
    with pytest.raises(Exception, match="position_mode: got '1d'; accepted are mrope, stock, sequential"):
        GVEConfig(position_mode="1d")


def test_stock_configurations_stay_stock(tmp_path):
    Qwen2_5_VLConfig().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is Qwen2_5_VLConfig


@pytest.mark.parametrize("dim", [0, 129])
def test_dimensions_that_the_model_has_not_are_refused(model, dim, tmp_path):
    fields = {**model.config.to_dict(), "truncate_dim": dim}
    with pytest.raises(Exception, match=f"truncate_dim: got {dim}; accepted are 1 to 128"):
        GVEConfig(**fields)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(Exception, match=f"truncate_dim: got {dim}; accepted are 1 to 128"):
        AutoConfig.from_pretrained(tmp_path)
    assert GVEConfig(**{**fields, "truncate_dim": 128}).truncate_dim == 128


def test_only_our_own_code_stays_named():
    own = {"AutoConfig": "user/repo--configuration_gve.GVEConfig", "AutoModel": "modeling_gve.GVEModel"}
    assert GVEConfig(auto_map=own).auto_map == own
    for foreign in ({"AutoModel": "theirs.Model"}, {"AutoConfig": "theirs.Config"}, {}, None):
        assert "auto_map" not in GVEConfig(auto_map=foreign).to_dict()
    assert drop_foreign_code({"a": 1}, "GVEConfig") == {"a": 1}
