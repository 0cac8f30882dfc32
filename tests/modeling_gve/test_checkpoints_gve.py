"""Published weights in every layout, with every configuration file that goes with them."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gve import GVEModel

OWN_FIELDS = ("position_mode", "normalize", "truncate_dim", "stock_vision", "auto_map")
LAYOUTS = ("native", "old", "old with head", "new", "new with head")
FOREIGN = {"AutoConfig": "theirs.TheirConfig", "AutoModel": "theirs.TheirModel"}


def layouts(state):
    """The weights under the names of each published layout."""
    text = {k.removeprefix("language_model."): v for k, v in state.items() if k.startswith("language_model.")}
    vision = {k: v for k, v in state.items() if k.startswith("visual.")}
    head = {"lm_head.weight": torch.zeros_like(text["embed_tokens.weight"])}
    old = {**vision, **{f"model.{k}": v for k, v in text.items()}}
    new = {**{f"model.{k}": v for k, v in vision.items()}, **{f"model.language_model.{k}": v for k, v in text.items()}}
    return {"native": state, "old": old, "old with head": old | head, "new": new, "new with head": new | head}


@pytest.fixture(scope="module")
def state(model):
    return {key: value.clone().contiguous() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def fields(model):
    """The published configuration of the same architecture, as transformers 5 writes it."""
    own = {key: value for key, value in model.config.to_dict().items() if key not in OWN_FIELDS}
    return own | {"model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"]}


def flat(fields):
    """As before transformers 5: the language model's fields at the top, the old names of the rotary ones."""
    text = {key: value for key, value in fields["text_config"].items() if key not in ("model_type", "layer_types")}
    rope = text.pop("rope_parameters")
    vision = {key: value for key, value in fields["vision_config"].items() if key != "rope_parameters"}
    return {
        **text,
        **{key: value for key, value in fields.items() if key not in ("text_config", "vision_config", "dtype")},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "vision_config": {**vision, "model_type": "qwen2_5_vl"},
        "torch_dtype": "float32",
    }


OWN_CODE = {"AutoConfig": "configuration_gve.GVEConfig", "AutoModel": "modeling_gve.GVEModel"}


def write(folder, state, fields, *, files=1):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if files == 1:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return folder
    index = {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": {}}
    for part in range(files):
        name = f"model-{part + 1:05d}-of-{files:05d}.safetensors"
        kept = {key: state[key] for key in sorted(state)[part::files]}
        save_file(kept, folder / name, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(kept, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def assert_loads(folder, state, **options):
    """Load, compare every tensor, save, compare the file, and load that with AutoModel."""
    loaded, report = GVEModel.from_pretrained(folder, output_loading_info=True, **options)
    assert [len(report[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [0, 0, 0]
    assert set(loaded.state_dict()) == set(state)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    loaded.save_pretrained(folder / "again")
    saved = load_file(folder / "again" / "model.safetensors")
    assert set(saved) == set(state) and all(torch.equal(saved[key], state[key]) for key in state)
    config = json.loads((folder / "again" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gve", ["GVEModel"])
    # save_embedder, once called in a process, has every later save name our own code
    assert config.get("auto_map", OWN_CODE) == OWN_CODE
    again = AutoModel.from_pretrained(folder / "again", dtype=next(iter(state.values())).dtype)
    assert type(again) is GVEModel
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    return loaded


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_and_is_saved_natively(state, fields, tmp_path, layout, files):
    assert_loads(write(tmp_path, layouts(state)[layout], fields, files=files), state)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", ["old", "old with head", "new", "new with head"])
def test_flat_configurations_of_older_versions(model, state, fields, tmp_path, layout, tied):
    older = flat(fields) | {"tie_word_embeddings": tied}
    loaded = assert_loads(write(tmp_path, layouts(state)[layout], older), state)
    assert loaded.config.tie_word_embeddings is tied
    ours, theirs = (c.text_config.rope_parameters for c in (model.config, loaded.config))
    assert {key: theirs[key] for key in ours} == ours
    assert loaded.config.text_config.layer_types == model.config.text_config.layer_types


def test_a_checkpoint_of_the_stock_class(model, fields, tmp_path):
    """As the generating class itself saves it."""
    stock = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**copy.deepcopy(fields)))
    stock.save_pretrained(tmp_path)
    assert_loads(tmp_path, {key: value.clone() for key, value in stock.model.state_dict().items()})


@pytest.mark.parametrize("dtype", ["auto", torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", ["old with head", "new"])
def test_types_of_weights(state, fields, tmp_path, layout, dtype):
    low = {key: value.bfloat16() for key, value in state.items()}
    folder = write(tmp_path, layouts(low)[layout], fields | {"dtype": "bfloat16"})
    expected = {key: value.to(torch.bfloat16 if dtype == "auto" else dtype) for key, value in low.items()}
    assert assert_loads(folder, expected, dtype=dtype).dtype == next(iter(expected.values())).dtype


def test_foreign_code_neither_runs_nor_stays(state, fields, tmp_path, monkeypatch):
    """Whether it is missing, lies in the folder or is named on the Hub, which would have to be asked for it."""
    for name in ("connect", "getaddrinfo"):
        place = "socket.socket.connect" if name == "connect" else f"socket.{name}"
        monkeypatch.setattr(place, lambda *args, **kwargs: pytest.fail("a connection was tried"))
    weights = layouts(state)["old with head"]
    hub = {name: f"someone/theirs--{value}" for name, value in FOREIGN.items()}
    for number, (config, named, code) in enumerate(
        ((flat(fields), FOREIGN, True), (fields, FOREIGN, True), (fields, FOREIGN, False), (flat(fields), hub, False))
    ):
        folder = write(tmp_path / str(number), weights, config | {"auto_map": named, "architectures": ["TheirModel"]})
        if code:
            (folder / "theirs.py").write_text("raise SystemExit('foreign code ran')")
        assert_loads(folder, state)
        assert_loads(folder, state, trust_remote_code=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_conversion_survives_its_reversal(state, fields, tmp_path, layout):
    """transformers reverses the renaming when it saves in the original format: the names must come out whole."""
    write(tmp_path, layouts(state)[layout], fields)
    loaded = GVEModel.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "original", save_original_format=True)
    names = set(load_file(tmp_path / "original" / "model.safetensors"))
    assert names in (set(layouts(state)["old"]), set(state))
    again, report = GVEModel.from_pretrained(tmp_path / "original", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_only_the_language_head_is_dropped_in_silence(state, fields, tmp_path):
    more = layouts(state)["old with head"] | {"extra.weight": torch.zeros(1)}
    less = {key: value for key, value in more.items() if key != "model.norm.weight"}
    _, report = GVEModel.from_pretrained(write(tmp_path, less, fields), output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"extra.weight"}
    assert set(report["missing_keys"]) == {"language_model.norm.weight"}
