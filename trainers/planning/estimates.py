"""Memory and time of a training step, in closed form from a model's shape and a step's tokens.

What autograd keeps of a layer was counted on the code of transformers 5.23 with `saved_tensors_hooks`; the terms follow
Korthikanti et al. (2022, "Reducing Activation Recomputation in Large Transformer Models", section 4) for a
gated MLP, RMS norms and adapters. Operations follow Kaplan et al. (2020): 2 a parameter and token forwards, 2 each for the
gradients of inputs and weights. Shards follow Rajbhandari et al. (2020, ZeRO, section 5).

Shapes: h hidden width, f MLP width, k width of the keys, a heads, r rank, s tokens of a row, T tokens of a pass, W
processes, e bytes of a number of the weights.
"""

from dataclasses import dataclass

from gve.trainers.gradcache.tower import FROZEN_TOKENS
from gve.trainers.planning.shapes import Shape

SHARDING = ("none", "zero2", "zero3", "fsdp2")
"""What the processes share: nothing (DDP); gradients and optimizer; these and the weights (both others)."""
MASK_BYTES = 1
"""A dropout mask's number on a GPU; on a CPU it is as wide as the weights, see `layer_bytes`."""
UTILISATION = 0.35
"""Share of a device's peak that a step reaches."""


@dataclass(frozen=True)
class Method:
    """How a model is trained, as far as memory and time depend on it."""

    number_bytes: int = 2  # e, 2 for bfloat16 and 4 for float32
    lora_rank: int = 0  # r; 0 trains all weights
    lora_dropout: bool = True  # whether adapters have dropout
    freeze_vision: bool = False  # whether tower and token embeddings are frozen; adapters freeze all else
    checkpointing: bool = False  # whether activations are computed again in the backward pass
    cache_tokens: int | None = None  # tokens embedded at a time with cached gradients; None embeds a batch in one pass
    eager: bool = False  # whether attention keeps its matrix of s x s weights
    masters: bool = False  # whether low-precision weights are stepped as fp32 copies
    sharding: str = "none"  # one of `SHARDING`
    processes: int = 1  # W
    on_cpu: bool = False  # whether dropout masks are as wide as the weights
    shared_media: bool = False  # whether pixels travel as bytes and become numbers a piece of the tower's at a time


@dataclass(frozen=True)
class Load:
    """What one process computes in one batch."""

    tokens: int  # tokens of the language model over all columns, padding included
    vision: int  # tokens of images and videos over all columns
    largest: int  # tokens of the largest column, padding included
    largest_vision: int  # tokens of images and videos of the largest column
    longest: int  # s, tokens of the longest row


def trainable_parameters(shape: Shape, method: Method) -> int:
    """How many parameters are trained."""
    if method.lora_rank:
        return shape.adapter * method.lora_rank
    return shape.text + (0 if method.freeze_vision else shape.embeddings + shape.vision)


def layer_bytes(shape: Shape, method: Method, longest: int) -> int:
    """Bytes that autograd keeps of one layer of the language model for one token.

    All weights: `2h(4 + 2e)` for the norms (their input in fp32, its quotient, their output), attention, `4f e` for
    the MLP. Adapters: `8h` for the norms, attention, `3f e`, and of each of the six adapted maps its input after
    dropout with the mask, `(5h + f)(e + mask)`, and its `r e` inner values; without dropout one input for each block,
    `(2h + f) e`. Attention: eager `3h e + a s (e + 4)` (`a s e` in fp32), else `(2h + 2k) e + 4a`.
    """
    h, f, e, r = shape.hidden, shape.intermediate, method.number_bytes, method.lora_rank
    weights = e if e == 4 else e + 4
    attention = 3 * h * e + shape.heads * longest * weights
    if not method.eager:
        attention = (2 * h + 2 * shape.kv_width) * e + 4 * shape.heads
    if not r:
        output = h * e if method.eager else 0  # the fused kernels keep it anyway
        return 2 * h * (4 + 2 * e) + attention + output + 4 * f * e + 8
    kept = 8 * h + attention + 3 * f * e + 6 * r * e + 8
    if not method.lora_dropout:
        return kept + (2 * h + f) * e
    return kept + (5 * h + f) * (e + (e if method.on_cpu else MASK_BYTES))


def vision_block_bytes(shape: Shape, method: Method) -> int:
    """The same of one block of the vision tower for one patch, where the tower is trained."""
    h, f, e = shape.vision_hidden, shape.vision_intermediate, method.number_bytes
    return 2 * h * (4 + 2 * e) + 4 * h * e + 4 * f * e + 8


def working_bytes(shape: Shape, method: Method) -> int:
    """Bytes that a layer's backward needs for one token on top of what is kept: `(2f + 2h) e`.

    Counted as live storages at the peak, which is in the MLP: six rows of width f are alive there (gate, up and the
    activation; three gradients), of which four are kept (`layer_bytes`).
    """
    return (2 * shape.intermediate + 2 * shape.hidden) * method.number_bytes


def memory_bytes(shape: Shape, method: Method, load: Load) -> dict[str, int]:
    """Peak bytes of one process by use, without libraries and buffers; `working` is held by a layer while it runs."""
    e, trained = method.number_bytes, trainable_parameters(shape, method)
    shared = method.processes if method.sharding != "none" else 1
    weights = (shape.parameters + (trained if method.lora_rank else 0)) * e
    gathered = 2 * (shape.text // shape.layers) * e if method.sharding in ("zero3", "fsdp2") else 0
    if method.sharding in ("zero3", "fsdp2"):
        weights = weights // shared + gathered
    buckets = trained * e if method.processes > 1 and method.sharding == "none" else 0
    states = trained * (12 if method.masters and e < 4 else 2 * e) // shared
    activations, working = _activations(shape, method, load)
    pixel_bytes = shape.merged * shape.patch_values * (1 if method.shared_media else 4)
    parts = {
        "weights": weights,
        "gradients": trained * e // shared + buckets,
        "optimizer": states,
        "activations": activations,
        "working": working,
        "inputs": load.vision * pixel_bytes + load.tokens * 8 * 4,
    }
    return parts | {"total": sum(parts.values())}


def _activations(shape: Shape, method: Method, load: Load) -> tuple[int, int]:
    """What is kept for the backward pass, and what a layer or block needs on top while it runs."""
    trained = not method.lora_rank and not method.freeze_vision
    cached = method.cache_tokens is not None
    text, tower = _text(shape, method, load), _tower(shape, method, load, trained=trained)
    # the features of all media stay to the end of the step, whichever piece runs
    features = load.vision * shape.hidden * method.number_bytes
    if cached or (method.shared_media and not trained):  # the tower runs before anything of the language model is kept
        kept, working = max(text, tower, key=sum)
    else:
        kept, working = text[0] + tower[0], max(text[1], tower[1])
    return kept + features, working


def _text(shape: Shape, method: Method, load: Load) -> tuple[int, int]:
    """The same of the language model."""
    tokens, column = load.tokens, load.largest
    if method.cache_tokens is not None and method.cache_tokens < tokens:
        tokens = column = max(method.cache_tokens, load.longest)
    layer = layer_bytes(shape, method, load.longest)
    if method.checkpointing:  # each layer's input, and all of the one layer that runs again
        kept = tokens * shape.layers * shape.hidden * method.number_bytes + column * layer
    else:
        kept = tokens * shape.layers * layer
    return kept, column * working_bytes(shape, method)


def _tower(shape: Shape, method: Method, load: Load, *, trained: bool) -> tuple[int, int]:
    """The same of the vision tower."""
    together = load.vision if method.shared_media else load.largest_vision
    if method.cache_tokens is not None or (method.shared_media and not trained):
        # pieces count a token as `gve.trainers.gradcache.tower.token_cost` does
        cost = shape.vision_depth * shape.vision_hidden * shape.merged / (shape.layers * shape.hidden)
        together = min(load.vision, round((method.cache_tokens or FROZEN_TOKENS) / cost))
    e, patches, kept = method.number_bytes, together * shape.merged, 0
    working = (3 * shape.vision_intermediate + 6 * shape.vision_hidden) * e
    if method.shared_media:  # bytes become numbers a piece at a time
        working += shape.patch_values * 4
    if trained:
        block = vision_block_bytes(shape, method)
        graph = patches if method.cache_tokens is not None else load.vision * shape.merged
        kept = graph * shape.vision_depth * (shape.vision_hidden * e if method.checkpointing else block)
        kept += patches * block if method.checkpointing else 0
    return kept, patches * working


def step_flops(shape: Shape, method: Method, load: Load) -> float:
    """Operations of one process for one batch.

    A token costs `2P` forwards through the P parameters of the language model's layers and `4 L h s / 2` in causal
    attention; backwards the same for the inputs' gradient, and once more where the weights are trained; once more
    forwards with checkpointing, and once more with cached gradients. A patch costs `2P` of the tower's parameters, three
    times that where the tower is trained.
    """
    cached = method.cache_tokens is not None and method.cache_tokens < load.tokens
    passes = 2 + (0 if method.lora_rank else 1) + method.checkpointing + cached
    text = load.tokens * (2 * shape.text + 2 * shape.layers * shape.hidden * load.longest)
    tower_trained = not method.lora_rank and not method.freeze_vision
    tower = (3 + method.checkpointing if tower_trained else 1) + cached
    return text * passes + load.vision * shape.merged * 2 * shape.vision * tower


def step_seconds(flops: float, tflops: float) -> float:
    """Seconds of so many operations on a device of this peak; waiting for data and other devices not counted."""
    return flops / (tflops * 1e12 * UTILISATION)
