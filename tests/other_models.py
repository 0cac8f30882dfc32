"""Folders of tiny random models of other families, as sentence-transformers saves or their publishers lay them out."""

import json

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from sentence_transformers.sentence_transformer.modules import Pooling
from stock_twin import publish
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    EmbeddingGemma2Config,
    EmbeddingGemma2Model,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLProcessor,
)

import gve

WORDS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:|", "clip", "find", "video", "the"]
PROMPTS = {"query": "Represent the user's input.", "document": ""}
PAIR_TEMPLATE = """<|im_start|>user
<Instruct>: {% for m in messages if m.role == "system" %}{{ m.content[0].text }}{% endfor %}\
{% for m in messages if m.role != "system" %}\n<{{ m.role }}>: {% for part in m.content %}\
{% if part.type == "text" %}{{ part.text }}{% else %}<|vision_start|><|{{ part.type }}_pad|><|vision_end|>{% endif %}\
{% endfor %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n"""
GEMMA_TOKENS = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
GEMMA_TOKENS |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}


def word_tokenizer(length=77, **extra):
    """A tokenizer of few words, which begins with <s> and ends with </s>."""
    special = ["<pad>", "<s>", "</s>", "<unk>", *extra.get("extra_special_tokens", {}).values()]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **names, **extra)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make().eval()


def text_model(folder):
    """A BERT with mean pooling and prompts of its own."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = word_tokenizer()
    seeded(lambda: BertModel(BertConfig(vocab_size=len(tokenizer), **small))).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base")), Pooling(16, "mean")]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save_pretrained(str(folder / "text"))
    return folder / "text"


def clip_model(folder):
    """A CLIP, which takes texts and images, one at a time."""
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = word_tokenizer()
    text = small | {"vocab_size": len(tokenizer), "eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0}
    vision = small | {"image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    seeded(lambda: CLIPModel(config)).save_pretrained(folder / "base")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessorPil(**sizes), tokenizer).save_pretrained(folder / "base")
    SentenceTransformer(modules=[Transformer(str(folder / "base"))], device="cpu").save_pretrained(
        str(folder / "clip")
    )
    return folder / "clip"


def qwen3_vl(folder):
    """Qwen3-VL with the sentence-transformers files of Qwen3-VL-Embedding: last token, unit length, its prompt."""
    parts = gve.build_tiny(["find the clip 0123456789"], family="qwen3_vl", frame_size=32, num_frames=2)
    publish(folder, *parts, prefixes={"model.": "model."})  # the layout of Qwen3-VL keeps these names
    names = {"": Transformer, "1_Pooling": Pooling, "2_Normalize": Normalize}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{kind.__module__}.{kind.__name__}"}
        for place, (path, kind) in enumerate(names.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    Pooling(64, "lasttoken").save(str(folder / "1_Pooling"))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": PROMPTS}))
    return folder


def qwen3_vl_reranker(folder, *, videos):
    """Qwen3-VL with the sentence-transformers files of Qwen3-VL-Reranker: the logit of one word over another's."""
    folder.mkdir()
    parts = gve.build_tiny(["find the clip 0123456789"], family="qwen3_vl", frame_size=32, num_frames=2)
    publish(folder, *parts, prefixes={"model.": "model."})
    patches = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    video = {"video_processor_type": "Qwen3VLVideoProcessor", "size": {"shortest_edge": 1024, "longest_edge": 1 << 16}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video | patches))
    image = json.loads((folder / "preprocessor_config.json").read_text()) | {"processor_class": "Qwen3VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "chat_template.jinja").write_text(PAIR_TEMPLATE)
    modules = [Transformer, LogitScore]
    modules = [{"idx": n, "name": str(n), "type": f"{m.__module__}.{m.__name__}"} for n, m in enumerate(modules)]
    modules = [module | {"path": path} for module, path in zip(modules, ("", "1_LogitScore"), strict=True)]
    (folder / "modules.json").write_text(json.dumps(modules))
    kinds = {kind: {"method": "forward", "method_output_name": "logits"} for kind in ("text", "image", "message")}
    kinds["message"]["format"] = "structured"
    kinds |= {"video": kinds["image"]} if videos else {}
    task = {"transformer_task": "any-to-any", "modality_config": kinds, "module_output_name": "causal_logits"}
    (folder / "sentence_bert_config.json").write_text(json.dumps(task))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    (folder / "1_LogitScore").mkdir()
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps({"true_token_id": 5, "false_token_id": 6}))
    return folder


class PictureProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor without videos, for which it needs torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(cls, folder, **kwargs):
        """The processor of `qwen3_vl_reranker`."""
        parts = Qwen2VLImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        return cls(*parts, chat_template=PAIR_TEMPLATE)


def embedding_gemma2(folder):
    """EmbeddingGemma 2 for text, images and videos; its processor cannot be made without torchvision."""
    from transformers import EmbeddingGemma2Processor, EmbeddingGemma2VideoProcessor, Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    tokenizer = word_tokenizer(2048, extra_special_tokens=GEMMA_TOKENS)
    parts = (Gemma4AudioFeatureExtractor(), Gemma4ImageProcessorPil(max_soft_tokens=70), tokenizer)
    processor = EmbeddingGemma2Processor(*parts, EmbeddingGemma2VideoProcessor(), image_seq_length=70)
    ids = {name.replace("_token", "_token_id"): tokenizer.convert_tokens_to_ids(t) for name, t in GEMMA_TOKENS.items()}
    ids["eoa_token_index"] = ids.pop("eoa_token_id")
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 8, "hidden_size_per_layer_input": 8, "embedding_dim": 16}
    text |= {
        "global_head_dim": 8,
        "vocab_size": len(tokenizer),
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": 1,
    }
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 8, "model_type": "gemma4_vision"}
    config = EmbeddingGemma2Config(
        text_config=text, vision_config=vision, video_token_id=processor.video_token_id, **ids
    )
    seeded(lambda: EmbeddingGemma2Model(config)).save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base")), Pooling(16, "mean"), Normalize()]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save_pretrained(str(folder / "gemma"))
    return folder / "gemma"
