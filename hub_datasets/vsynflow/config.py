"""The configuration of a run: every threshold in one place, with where it comes from.

Sources of the defaults: "decoded, not header", frames, duration and repair: the paper, A.5; sides and aspect: NeMo
Curator (256) loosened to what an embedder sees; motion below 1 of 255: measured on stills, noisy stills and slide
shows (all below 0.1) against moving clips (all above 6); PDQ 31: its authors' own; caption overlap 0.8: practice of
datatrove and NeMo; shared captions: the paper, A.4; lowest fifth of similarities: after DataComp, whose best 30 % are
the other extreme; scene cuts: PySceneDetect's adaptive detector.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gve.hub_datasets.vsynflow.batch_files import BatchCaptioner
from gve.hub_datasets.vsynflow.decontamination import Decontamination
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.captions import Multiplicity, NearCaptions
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, Similarity
from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.rectification import CaptionLimits, Rectification
from gve.hub_datasets.vsynflow.stages import Encoder, Stage
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner

WORLD = {
    "video": {"least_side": 32, "least_frames": 8, "least_motion": 0.1},
    "most_same_captions": 3,
    "most_caption_overlap": 1.0,
    "clip_seconds": [0.75, 4.0],
}
"""What differs for the rendered world: its clips are 48 pixels wide, two seconds long, and of few words."""
PROFILES: dict[str, dict[str, Any]] = {"default": {}, "world": WORLD}


@dataclass(frozen=True)
class Config:
    """Everything that a run can be told.

    Attributes:
        seed: Seed of everything random.
        deadline: Seconds that one video may take to decode.
        video: Limits of videos.
        caption: Limits of captions.
        most_same_captions: Videos that may share a caption.
        most_caption_overlap: Share of common runs of three words with an earlier caption.
        most_bits: PDQ distance up to which a video is a copy of an earlier one.
        least_similarity_share: Share of the corpus that is refused for the least similar captions.
        least_similarity: Floor of that similarity; depends on the encoder.
        encoder: "module:function" that gives an encoder; None leaves out what needs one.
        captioner: {"kind": "world", "folder"}, or the fields of EndpointCaptioner, BatchCaptioner or InProcessCaptioner
            with the kind endpoint, batch or transformers; None leaves out enrichment and extension.
        captioner_frames: Frames that the captioner and the encoder see.
        fingerprints: File of a benchmark's fingerprints, which no record may meet; None leaves the gate out, and what
            it leaves out cannot be published.
        most_runs: Runs of 13 words in common with the benchmark that are let through.
        most_text_similarity: Cosine with a benchmark's text above which a text paraphrases it; for the encoder.
        clip_seconds: Shortest and longest clip of a clip-video pair.
    """

    seed: int = 0
    deadline: float = 60.0
    video: VideoLimits = field(default_factory=VideoLimits)
    caption: CaptionLimits = field(default_factory=CaptionLimits)
    most_same_captions: int = 1
    most_caption_overlap: float = 0.8
    most_bits: int = 31
    least_similarity_share: float = 0.2
    least_similarity: float = -1.0
    encoder: str | None = None
    captioner: Mapping[str, Any] | None = None
    captioner_frames: int = 8
    fingerprints: str | None = None
    most_runs: int = 0
    most_text_similarity: float = 0.95
    clip_seconds: tuple[float, float] = (2.0, 10.0)


def make_config(values: Mapping[str, Any]) -> Config:
    """A configuration from plain values, such as a YAML file's; "profile" names the defaults.

    Raises:
        ValueError: For an unknown key or profile.
    """
    given = dict(values)
    profile = given.pop("profile", "default")
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}; {', '.join(PROFILES)} are accepted")
    merged = {**PROFILES[profile], **given}
    for name, kind in (("video", VideoLimits), ("caption", CaptionLimits)):
        asked = {**PROFILES[profile].get(name, {}), **given.get(name, {})}
        _check_keys(name, asked, kind)
        merged[name] = replace(kind(), **{key: _tuple(value) for key, value in asked.items()})
    _check_keys("config", merged, Config)
    return Config(**{key: _tuple(value) for key, value in merged.items()})


def read_config(path: Path | None) -> dict[str, Any]:
    """The plain values of a YAML file; none where there is no file.

    Raises:
        ValueError: If it holds no mapping.
    """
    values = {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"config: {path} holds a {type(values).__name__}; a mapping of names to values is accepted")
    return values


def make_flow(config: Config) -> Flow:
    """The flow of a configuration: quality control, then, with a captioner, enrichment and extension."""
    stages = [*quality_stages(config), *pair_stages(config)]
    if config.fingerprints is not None:
        written = ("captions", "frame_captions", "image_query", "clip_query") if config.captioner is not None else ()
        gate = Decontamination(
            config.fingerprints,
            ("text", "raw_text", *written),
            Fingerprints.load(Path(config.fingerprints)).encoder and (config.encoder or ""),
            config.most_bits,
            config.most_runs,
            config.most_text_similarity,
        )
        # before the last stage, so that no leak is mined as a negative either
        stages.insert(len(stages) - (config.captioner is not None), gate)
    encoder = None if config.encoder is None else partial(_load_encoder, config.encoder)
    captioner = None if config.captioner is None else captioner_maker(config.captioner)[1]
    return Flow(tuple(stages), config.seed, config.deadline, encoder, captioner)


def quality_stages(config: Config) -> list[Stage]:
    """Stage 1 [3.2], cheapest first; the paper's order of the three filters it names."""
    stages: list[Stage] = [
        Rectification(config.caption),
        Multiplicity(config.most_same_captions),
        NearCaptions(config.most_caption_overlap),
        Integrity(config.video),
        Duplicates(config.most_bits),
    ]
    if config.encoder is not None:
        scores = Similarity(config.encoder, config.captioner_frames)
        stages += [scores, Consistency(config.least_similarity_share, config.least_similarity)]
    return stages


def pair_stages(config: Config) -> list[Stage]:
    """Stages 2 and 3 [3.2]; none without a captioner."""
    if config.captioner is None:
        return []
    name, _ = captioner_maker(config.captioner)
    encoder, seen, seed = config.encoder or "", config.captioner_frames, config.seed
    least, most = config.clip_seconds
    return [
        Enrichment(name, encoder=encoder, num_frames=seen, seed=seed),
        References(least_seconds=least, most_seconds=most, shots="shots", seed=seed),
        Compositions(name, num_frames=seen, seed=seed),
        Mining(encoder, num_frames=seen),
    ]


def captioner_maker(values: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    """A captioner's name and the function that makes it.

    Raises:
        ValueError: For an unknown kind.
    """
    given = dict(values)
    kind = given.pop("kind", None)
    if kind == "world":
        return TRUTH_NAME, partial(TruthCaptioner, Path(given["folder"]))
    if kind == "endpoint":
        return given["model"], partial(EndpointCaptioner, **given)
    if kind == "batch":
        return given["model"], partial(BatchCaptioner, **{**given, "folder": Path(given["folder"])})
    if kind == "transformers":
        return given["name"], partial(_load_in_process, given)
    raise ValueError(f"captioner.kind: got {kind!r}; world, endpoint, batch, transformers are accepted")


def _load_in_process(values: Mapping[str, Any]) -> Any:
    """Made here, since importing it takes seconds that the other captioners need not wait for."""
    module = importlib.import_module("gve.hub_datasets.vsynflow.in_process")
    return module.InProcessCaptioner(**values)


def _load_encoder(place: str) -> Encoder:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)()


def _check_keys(name: str, values: Mapping[str, Any], kind: Any) -> None:
    known = [one.name for one in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{name}: got {unknown[0]!r}; {', '.join(known)} are accepted; remove or rename it")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
