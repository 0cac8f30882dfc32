import json

import numpy as np
import PIL.Image
import pytest
from chats import assert_same, rendered
from transformers import AutoProcessor

from gve import GVEProcessor
from gve.chat_gve import template_with
from gve.tiny import build_tokenizer


def test_wrong_parts_are_refused(processor):
    with pytest.raises(TypeError, match="video_processor: got Qwen2VLImageProcessorPil"):
        GVEProcessor(processor.image_processor, processor.tokenizer, processor.image_processor)


def publish(folder):
    """A folder as Qwen2.5-VL's are published: no processor_config.json, a budget for chats, a template of its own."""
    tokenizer = build_tokenizer(["a red circle"])
    tokenizer.padding_side = "right"
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    settings |= {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    settings |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("own_template", [False, True])
def test_a_published_folder_gets_the_embedders_settings(tmp_path, own_template):
    publish(tmp_path)
    if own_template:
        (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    processor = GVEProcessor.from_pretrained(tmp_path)
    sizes = [dict(part.size) for part in (processor.image_processor, processor.video_processor)]
    limits = [(size["shortest_edge"] // 784, size["longest_edge"] // 784) for size in sizes]
    assert limits == [(4, 256), (4, 200)] and processor.video_processor.num_frames == 8
    assert processor.chat_template == template_with() and processor.tokenizer.padding_side == "left"
    rows = [
        {"text": "a", "image": PIL.Image.new("RGB", (2000, 2000))},
        {"video": np.zeros((9, 900, 900, 3), np.uint8)},
    ]
    out = processor.prepare(rows)
    assert out["image_grid_thw"].tolist() == [[1, 32, 32]] and out["video_grid_thw"].tolist() == [[4, 28, 28]]
    assert_same(out, rendered(processor, rows))
    assert GVEProcessor.from_pretrained(tmp_path, num_frames=4).video_processor.num_frames == 4
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 9 * 784}
    processor.video_processor.num_frames, processor.video_processor.seconds_per_frame = 4, 0.5
    processor.save_pretrained(tmp_path / "ours")
    again = AutoProcessor.from_pretrained(tmp_path / "ours")
    assert type(again) is GVEProcessor and again.prepare(rows)["video_grid_thw"].tolist() == [[2, 28, 28]]
    assert_same(again.prepare(rows), processor.prepare(rows))
    assert again.video_processor.seconds_per_frame == 0.5
    assert "min_pixels" not in (tmp_path / "ours" / "processor_config.json").read_text()
