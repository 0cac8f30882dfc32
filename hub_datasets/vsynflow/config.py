"""The configuration of a run: every threshold in one place, with where it comes from.

Sources of the defaults: "decoded, not header", frames, duration and repair: the paper, A.5; sides and aspect: NeMo
Curator (256) loosened to what an embedder sees; motion below 1 of 255: measured on stills, noisy stills and slide
shows (all below 0.1) against moving clips (all above 6); PDQ 31: its authors' own; caption overlap 0.8: practice of
datatrove and NeMo; shared captions: the paper, A.4; lowest fifth of similarities: after DataComp, whose best 30 % are
the other extreme; black frames: FFmpeg's blackdetect; scene cuts: PySceneDetect's adaptive detector, and a change of
colours of 10 of 255, since on the sample videos of iscc-samples false cuts have below 8 and true ones above 16; nsfw
0.5: Data-Juicer's; pii 0.6: own, by the labelled texts of the tests; cosine 0.95 of texts and videos: a common practice
for copies, to be measured for the encoder at hand; those of the rendered world: by the table in hub_datasets/README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gve.hub_datasets.vsynflow.captioners import captioner_maker
from gve.hub_datasets.vsynflow.decontamination import Decontamination
from gve.hub_datasets.vsynflow.encoders import encoder_name, make_encoder
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.fingerprints import Fingerprints
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.captions import Multiplicity, NearCaptions
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, Similarity
from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.quality.filters import Filters, make_filters
from gve.hub_datasets.vsynflow.quality.integrity import Integrity, VideoLimits
from gve.hub_datasets.vsynflow.quality.rectification import CaptionLimits, Rectification
from gve.hub_datasets.vsynflow.quality.shots import SceneRules
from gve.hub_datasets.vsynflow.stages import SetupError, Stage

WORLD = {
    "video": {"least_side": 32, "least_frames": 8, "least_motion": 0.1},
    "most_same_captions": 3,
    "most_caption_overlap": 1.0,
    "clip_seconds": [0.75, 4.0],
    "most_text_similarity": 0.99,
    "most_video_similarity": 0.995,
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
        scenes: How scene cuts are found; {"detector": "pyscenedetect"} needs the extra `synth`.
        filters: Optional ones, {"nsfw": {"model", "labels", "threshold", "frames"}, "pii": {"action", "threshold",
            "entities", "regions"}}; `pii` needs the extra of that name.
        most_same_captions: Videos that may share a caption.
        most_caption_overlap: Share of common runs of three words with an earlier caption.
        most_bits: PDQ distance up to which a video is a copy of an earlier one.
        least_similarity_share: Share of the corpus that is refused for the least similar captions.
        least_similarity: Floor of that similarity; depends on the encoder.
        encoder: "module:function" that gives an encoder, or "module:function:argument"; None leaves out what needs one.
        captioner: {"kind": "world", "folder"}, or the fields of EndpointCaptioner, BatchCaptioner or InProcessCaptioner
            with the kind endpoint, batch or transformers; None leaves out enrichment and extension.
        captioner_frames: Frames that the captioner and the encoder see.
        fingerprints: File of a benchmark's fingerprints, which no record may meet; None leaves the gate out, and what
            it leaves out cannot be published.
        most_runs: Runs of 13 words in common with the benchmark that are let through.
        most_text_similarity: Cosine with a benchmark's text above which a text paraphrases it; for the encoder.
        most_video_similarity: Cosine with a benchmark's video above which a video shows the same; for the encoder.
        clip_seconds: Shortest and longest clip of a clip-video pair.
    """

    seed: int = 0
    deadline: float = 60.0
    video: VideoLimits = field(default_factory=VideoLimits)
    caption: CaptionLimits = field(default_factory=CaptionLimits)
    scenes: SceneRules = field(default_factory=SceneRules)
    filters: Filters = field(default_factory=Filters)
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
    most_video_similarity: float = 0.95
    clip_seconds: tuple[float, float] = (2.0, 10.0)


def make_config(values: Mapping[str, Any]) -> Config:
    """A configuration from plain values, such as a YAML file's; "profile" names the defaults.

    Raises:
        ValueError: For an unknown key or profile, or a value that is not accepted.
        MissingExtraError: If an option needs packages that are not installed.
    """
    given = dict(values)
    profile = given.pop("profile", "default")
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}; {', '.join(PROFILES)} are accepted")
    merged = {**PROFILES[profile], **given}
    for name, kind in (("video", VideoLimits), ("caption", CaptionLimits), ("scenes", SceneRules)):
        asked = {**PROFILES[profile].get(name, {}), **given.get(name, {})}
        _check_keys(name, asked, kind)
        merged[name] = replace(kind(), **{key: _tuple(value) for key, value in asked.items()})
    _check_keys("config", merged, Config)
    merged["filters"] = make_filters(given.get("filters") or {})
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
            _gate_encoder(config),
            config.most_bits,
            config.most_runs,
            config.most_text_similarity,
            config.most_video_similarity,
        )
        # before the last stage, so that no leak is mined as a negative either
        stages.insert(len(stages) - (config.captioner is not None), gate)
    encoder = None if config.encoder is None else partial(make_encoder, config.encoder)
    captioner = None if config.captioner is None else captioner_maker(config.captioner)[1]
    return Flow(tuple(stages), config.seed, config.deadline, encoder, captioner)


def quality_stages(config: Config) -> list[Stage]:
    """Stage 1 [3.2], cheapest first; the paper's order of the three filters it names."""
    stages: list[Stage] = [
        *config.filters.of_captions(),
        Rectification(config.caption),
        Multiplicity(config.most_same_captions),
        NearCaptions(config.most_caption_overlap),
        Integrity(config.video, scenes=config.scenes),
        Duplicates(config.most_bits),
        *config.filters.of_videos(),
    ]
    if config.encoder is not None:
        scores = Similarity(encoder_name(config.encoder), config.captioner_frames)
        stages += [scores, Consistency(config.least_similarity_share, config.least_similarity)]
    return stages


def pair_stages(config: Config) -> list[Stage]:
    """Stages 2 and 3 [3.2]; none without a captioner."""
    if config.captioner is None:
        return []
    name, _ = captioner_maker(config.captioner)
    encoder, seen, seed = _encoder_name(config), config.captioner_frames, config.seed
    least, most = config.clip_seconds
    return [
        Enrichment(name, encoder=encoder, num_frames=seen, seed=seed),
        References(least_seconds=least, most_seconds=most, shots="shots", seed=seed),
        Compositions(name, num_frames=seen, seed=seed),
        *config.filters.of_writing(),
        Mining(encoder, num_frames=seen),
    ]


def _encoder_name(config: Config) -> str:
    return "" if config.encoder is None else encoder_name(config.encoder)


def _gate_encoder(config: Config) -> str:
    """The encoder of the gate's two nets of embeddings; none where the fingerprints hold none."""
    assert config.fingerprints is not None
    known = Fingerprints.load(Path(config.fingerprints)).encoder
    if known and known != _encoder_name(config):
        raise SetupError(
            f"fingerprints: {config.fingerprints} holds embeddings of {known}, and the configuration's encoder is "
            f"{_encoder_name(config) or 'none'}; the same encoder is accepted, weights included; name it, or take the "
            "fingerprints again"
        )
    return known


def _check_keys(name: str, values: Mapping[str, Any], kind: Any) -> None:
    known = [one.name for one in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{name}: got {unknown[0]!r}; {', '.join(known)} are accepted; remove or rename it")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
