"""The configuration of a run: every threshold in one place, with its source.

Frames, duration, repair and shared captions: the paper (A.4, A.5). Sides and aspect: NeMo Curator (256), loosened.
Motion below 1 of 255: stills, noisy stills and slide shows have below 0.1, moving clips above 6. PDQ 31: its authors'.
Caption overlap 0.8: datatrove and NeMo. Lowest fifth of similarities: after DataComp, which keeps the best 30 %. Black
frames: FFmpeg's blackdetect. Scene cuts: PySceneDetect, plus a colour change of 10 of 255 (on iscc-samples false cuts
have below 8, true ones above 16). nsfw 0.5: Data-Juicer. pii 0.6: ours, by the tests' labelled texts. Cosine 0.95 of
texts and videos: common for copies; measure it for your encoder. The rendered world's: the table in README.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from gve.hub_datasets.vsynflow.batch_files import BatchCaptioner
from gve.hub_datasets.vsynflow.decontamination import WRITTEN as WRITTEN_GATE
from gve.hub_datasets.vsynflow.decontamination import Decontamination
from gve.hub_datasets.vsynflow.encoders import encoder_name, make_encoder
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.counterfactuals import Counterfactuals
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.captions import Multiplicity, NearCaptions
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, Similarity
from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.nsfw import Nsfw
from gve.hub_datasets.vsynflow.quality.pii import Pii, PiiRules, Redaction
from gve.hub_datasets.vsynflow.quality.rectification import CaptionLimits, Rectification
from gve.hub_datasets.vsynflow.quality.shots import SceneRules
from gve.hub_datasets.vsynflow.settings import check_keys
from gve.hub_datasets.vsynflow.stages import SetupError, Stage
from gve.hub_datasets.vsynflow.truth import TruthCaptioner

# the rendered world's clips are 48 pixels wide, two seconds long, and described in few words
WORLD = {
    "video": {"least_side": 32, "least_frames": 8, "least_motion": 0.1},
    "most_same_captions": 3,
    "most_caption_overlap": 1.0,
    "clip_seconds": [0.75, 4.0],
    "most_text_similarity": 0.99,
    "most_video_similarity": 0.995,
}
CAPTIONERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "world": (TruthCaptioner, ("folder",)),
    "endpoint": (EndpointCaptioner, ("model", "urls")),
    "batch": (BatchCaptioner, ("model", "folder")),
}  # class of each kind, and its fields without a default
WRITTEN = ("captions", "frame_captions", "image_query", "clip_query")  # columns that a captioner wrote
PROFILES: dict[str, dict[str, Any]] = {"default": {}, "world": WORLD}


@dataclass(frozen=True)
class Filters:
    """The optional filters in use; None leaves one out."""

    nsfw: Nsfw | None = None
    pii: PiiRules | None = None


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seed: int = 0
    deadline: float = 60.0  # seconds to decode one video
    video: VideoLimits = field(default_factory=VideoLimits)
    caption: CaptionLimits = field(default_factory=CaptionLimits)
    scenes: SceneRules = field(default_factory=SceneRules)
    filters: Filters = field(default_factory=Filters)
    most_same_captions: int = 1  # videos that may share a caption
    most_caption_overlap: float = 0.8  # share of runs of three words in common with an earlier caption
    most_bits: int = 31  # PDQ distance of two copies
    least_similarity_share: float = 0.2  # of the corpus, rejected for the lowest similarity
    least_similarity: float = -1.0  # floor; depends on the encoder
    encoder: str | None = None  # "module:function" or "module:function:argument"; None skips what needs one
    captioner: Mapping[str, Any] | None = None  # "kind" of CAPTIONERS and its fields; None skips stages 2 and 3
    writer: Mapping[str, Any] | None = None  # likewise; writes composed queries and wrong texts, from captions alone
    captioner_frames: int = 8  # also for the encoder
    counterfactuals: bool = False  # one more request a video, and up to three edited files
    fingerprints: str | None = None  # without this file there is no gate, and no publication
    most_runs: int = 0  # runs of 13 words in common with the benchmark
    most_text_similarity: float = 0.95  # cosine above which a text paraphrases; calibrate it for your encoder
    most_video_similarity: float = 0.95  # cosine above which videos show the same; likewise
    clip_seconds: tuple[float, float] = (2.0, 10.0)  # shortest and longest


def make_config(values: Mapping[str, Any]) -> Config:
    """Make a configuration from plain values, such as a YAML file's; "profile" chooses the defaults.

    Raises:
        ValueError: For an unknown key or profile, or a value out of range.
        MissingExtraError: If an option needs packages that are not installed.
    """
    given = dict(values)
    profile = given.pop("profile", "default")
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}.")
    merged = {**PROFILES[profile], **given}
    for name, kind in (("video", VideoLimits), ("caption", CaptionLimits), ("scenes", SceneRules)):
        asked = {**PROFILES[profile].get(name, {}), **given.get(name, {})}
        check_keys(name, asked, _names(kind))
        merged[name] = replace(kind(), **{key: _tuple(value) for key, value in asked.items()})
    check_keys("config", merged, _names(Config))
    merged["filters"] = make_filters(given.get("filters") or {})
    return Config(**{key: _tuple(value) for key, value in merged.items()})


def make_filters(values: Mapping[str, Any]) -> Filters:
    """The filters of a configuration: {"nsfw": fields of Nsfw, "pii": fields of PiiRules}."""
    kinds: dict[str, Any] = {"nsfw": Nsfw, "pii": PiiRules}
    check_keys("filters", values, kinds)
    made = {}
    for name, given in values.items():
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise ValueError(f"filters.{name} must be a mapping of names to values, {{}} for defaults; got {given!r}.")
        check_keys(f"filters.{name}", given, _names(kinds[name]))
        made[name] = kinds[name](**{key: _tuple(value) for key, value in given.items()})
    return Filters(**made)


def read_config(path: Path | None) -> dict[str, Any]:
    """The plain values of a YAML file; none without a file."""
    values = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"config: {path} must hold a mapping of names to values, got a {type(values).__name__}.")
    return values


def make_flow(config: Config) -> Flow:
    """The flow of a configuration: quality control; with a captioner also enrichment and extension."""
    stages, pairs = quality_stages(config), pair_stages(config)
    if config.fingerprints is not None:
        limits = (config.most_bits, config.most_runs, config.most_text_similarity, config.most_video_similarity)
        texts, encoder = ("text", "raw_text"), _gate_encoder(config)
        stages.append(Decontamination(config.fingerprints, texts, encoder, *limits))  # before a call is paid for
        texts += _written(config)
        if pairs:  # before the last stage, so that no leak is mined as a negative either
            pairs.insert(-1, Decontamination(config.fingerprints, texts, encoder, *limits, name=WRITTEN_GATE))
    stages += pairs
    encoder = None if config.encoder is None else partial(make_encoder, config.encoder)
    captioner, writer = (None if one is None else captioner_maker(one)[1] for one in (config.captioner, config.writer))
    return Flow(tuple(stages), config.seed, config.deadline, encoder, captioner, writer)


def quality_stages(config: Config) -> list[Stage]:
    """Stage 1 [3.2], cheapest first; the paper's order of the three filters it names."""
    pii, nsfw = config.filters.pii, config.filters.nsfw
    stages: list[Stage] = [] if pii is None else [Pii(pii)]  # before cleaning, which would tear addresses apart
    if pii is not None and pii.action == "redact":
        stages.append(Redaction(pii.threshold))
    stages += [
        Rectification(config.caption),
        Multiplicity(config.most_same_captions),
        NearCaptions(config.most_caption_overlap),
        Integrity(config.video, scenes=config.scenes),
        Duplicates(config.most_bits),
        *([] if nsfw is None else [nsfw]),
    ]
    if config.encoder is not None:
        scores = Similarity(encoder_name(config.encoder), config.captioner_frames)
        stages += [scores, Consistency(config.least_similarity_share, config.least_similarity)]
    return stages


def pair_stages(config: Config) -> list[Stage]:
    """Stages 2 and 3 [3.2]; none without a captioner."""
    if config.counterfactuals and None in (config.captioner, config.encoder):
        raise ValueError("counterfactuals need a captioner to write them and an encoder to check them. Name both.")
    if config.captioner is None:
        if config.writer is not None:
            raise ValueError("writer: got one without a captioner, whose captions it writes about. Name both.")
        return []
    if "budget" in (config.writer or ()):
        raise ValueError("writer.budget: the captioner's budget is for both. Name it there.")
    name, _ = captioner_maker(config.captioner)
    writer = "" if config.writer is None else captioner_maker(config.writer)[0]
    pii = config.filters.pii
    encoder, seen, seed = _encoder_name(config), config.captioner_frames, config.seed
    least, most = config.clip_seconds
    return [
        Enrichment(name, encoder=encoder, num_frames=seen, seed=seed),
        References(least_seconds=least, most_seconds=most, shots="shots", seed=seed),
        Compositions(name, num_frames=seen, seed=seed, writer=writer),
        *([Counterfactuals(name, encoder, seen, seed, "shots", writer)] if config.counterfactuals else []),
        *([] if pii is None else [Pii(pii, _written(config), "pii_written", written=True)]),
        Mining(encoder, num_frames=seen),
    ]


def _written(config: Config) -> tuple[str, ...]:
    return (*WRITTEN, "counterfactual_texts") if config.counterfactuals else WRITTEN


def _encoder_name(config: Config) -> str:
    return "" if config.encoder is None else encoder_name(config.encoder)


def _gate_encoder(config: Config) -> str:
    """Name of the encoder for the gate's nets of embeddings; "" if the fingerprints hold none."""
    assert config.fingerprints is not None
    known = Fingerprints.load(Path(config.fingerprints)).encoder
    if known and known != _encoder_name(config):
        raise SetupError(
            f"encoder must be the fingerprints' own, {known}, weights included; got {_encoder_name(config) or 'none'}. "
            f"Name it, or fingerprint again for {config.fingerprints}."
        )
    return known


def captioner_maker(values: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    """A captioner's name, and the function that makes it; ValueError for a wrong kind or argument."""
    given = dict(values)
    kind = given.pop("kind", None)
    if kind not in CAPTIONERS:
        more = " Run transformers serve MODEL and name it as an endpoint." if kind == "transformers" else ""
        raise ValueError(f"captioner.kind must be one of {', '.join(CAPTIONERS)}, got {kind!r}.{more}")
    make, needed = CAPTIONERS[kind]
    check_keys("captioner", given, list(signature(make).parameters))
    missing = [name for name in needed if name not in given]
    if missing:
        raise ValueError(f"captioner.{missing[0]} is missing; {', '.join(needed)} are needed. Add it.")
    if "folder" in given:
        given["folder"] = Path(given["folder"])
    made = make(**given)
    if given.get("media") == "auto":
        given["media"] = made.media  # the same in all processes
    return made.name, partial(make, **given)


def _names(kind: Any) -> list[str]:
    return [one.name for one in fields(kind)]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
