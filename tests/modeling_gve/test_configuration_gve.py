import pytest
from transformers import AutoConfig, Qwen2_5_VLConfig

from gve import GVEConfig


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
