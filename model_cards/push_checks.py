"""What may leave this machine, and the checks of a model, an adapter, the metric or a Space before it does.

Shape legend: D width.
"""

import gc
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from huggingface_hub import ModelCard, RepoCard
from safetensors import SafetensorError

from gve.eval.console import fail
from gve.hub_datasets.pair_media import MEDIA
from gve.hub_datasets.schema import COUNTERFACTUALS, TASKS
from gve.hub_datasets.uvrb import SETS
from gve.model_cards.facts import load_whole, read_model
from gve.model_cards.loadback import largest_difference, load_metric, model_vectors, sentence_vectors, tolerance
from gve.model_cards.results import check_fingerprint, eval_results

FILE_BYTES = 50_000_000_000
"""Largest file: the limit of plain HTTP downloads (`huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE`)."""
FOLDER_FILES, REPO_FILES = 10_000, 100_000
"""The Hub's limits on the files of one folder and of one repository."""

_TEXT_SUFFIXES = (".md", ".json", ".py", ".txt", ".jinja", ".yaml", ".css")
_TEXT_BYTES = 20_000_000
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{20,}|\b(?:ghp|sk)[_-][A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")

# regular expressions, not the globs of huggingface_hub: a star of theirs crosses folders and takes hidden files
_PAGE = r"README\.md|LICENSE"
_MODEL = (
    _PAGE,
    r"config\.json|generation_config\.json",
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json",
    r"adapter_config\.json|adapter_model\.safetensors",
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt",
    r"processor_config\.json|preprocessor_config\.json|video_preprocessor_config\.json|chat_template\.(jinja|json)",
    r"modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json|\d_[A-Z][A-Za-z]+/config\.json",
    r"[a-z0-9_]+_gve\.py",
    r"assets/[\w-]+\.(png|jpg|svg)",
)
_SLUGS = "|".join(re.escape(task.slug) for task in SETS.values())
_UVRB = (_PAGE, rf"({_SLUGS})-(corpus|queries|qrels|top_ranked|times)/[\w-]+\.parquet")
_UVRD = (_PAGE, rf"({'|'.join((*TASKS, *COUNTERFACTUALS, MEDIA))})/train-[\w-]+\.parquet")
_APP = (_PAGE, r"requirements\.txt", r"(?!__)\w+\.py")
_SPACE = (*_APP, r"packages\.txt", r"assets/[\w-]+\.(png|jpg|svg|mp4|css)")


@dataclass(frozen=True)
class Kind:
    """A kind of repository."""

    name: str  # on the command line
    repo_type: str  # "model", "dataset" or "space"
    patterns: tuple[str, ...]  # regular expressions of uploadable paths
    hint: str  # the command that makes such a folder

    def allows(self, path: str) -> bool:
        """Whether a path in the repository may be uploaded."""
        return any(re.fullmatch(pattern, path) for pattern in self.patterns)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("model", "model", _MODEL, "gve train or save_embedder, and gve card --out README.md"),
        Kind("uvrb", "dataset", _UVRB, "gve world"),
        Kind("uvrd", "dataset", _UVRD, "gve world or gve synth build"),
        Kind("metric", "space", _APP, "this project as eval/video_retrieval"),
        Kind("space", "space", _SPACE, "gve app --space"),
    )
}


@dataclass(frozen=True)
class Upload:
    """What goes to the Hub."""

    kind: Kind
    folder: Path
    files: tuple[str, ...]  # paths in the repository
    left_out: tuple[str, ...]  # the rest; a subfolder that stays whole is named once, with a slash

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.folder / name).stat().st_size

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(map(self.size, self.files))


def collect(kind: Kind, folder: Path) -> Upload:
    """Choose the files to upload; ValueError if one is missing, too large for the Hub, or holds a secret."""
    if not folder.is_dir():
        fail(f"PATH: must be a folder made by {kind.hint}, got {str(folder)!r}. Check the path.")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = tuple(name for name in found if kind.allows(name))
    upload = Upload(kind, folder, files, _left_out(found, files))
    needed = ["README.md", *(("app.py", "requirements.txt") if kind.repo_type == "space" else ())]
    missing = [name for name in needed if name not in files]
    if missing:
        fail(f"PATH: {str(folder)!r} has no {', '.join(missing)}. Make the folder with {kind.hint}.")
    _check_limits(upload)
    _check_secrets(upload)
    return upload


def describe(upload: Upload) -> str:
    """Lines with each file's size, and what stays behind."""
    lines = [f"{_size(upload.size(name)):>10}  {name}" for name in upload.files]
    lines.append(f"{_size(upload.total):>10}  in {len(upload.files)} files")
    if upload.left_out:
        lines.append("not uploaded: " + ", ".join(upload.left_out))
    return "\n".join(lines) + "\n"


def read_card(upload: Upload) -> RepoCard:
    """Read the card; ValueError for broken metadata, or a model or dataset without a licence."""
    try:
        kind = ModelCard if upload.kind.name == "model" else RepoCard  # only the former parses scores
        card = kind((upload.folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)
        licence = card.data.to_dict().get("license")
    except (ValueError, TypeError, KeyError) as error:
        fail(f"README.md: its metadata cannot be read ({error}). Write the card again.")
    if upload.kind.repo_type != "space" and not licence:
        fail("README.md: states no licence. Add an identifier such as apache-2.0; `gve card --license` does.")
    return card


def check_space(upload: Upload, repo: str) -> None:
    """Require an app in the front matter, or a metric that has its repository's name and scores correctly."""
    head = read_card(upload).data.to_dict()
    lacking = [key for key in ("title", "sdk", "app_file") if not head.get(key)]
    if lacking:
        fail(f"README.md: has no {', '.join(lacking)}. A Space needs title, sdk and app_file; add them.")
    if head["app_file"] not in upload.files:
        fail(f"README.md: app_file {head['app_file']!r} is not among the files. Name one that is.")
    if upload.kind.name == "metric":
        script = f"{repo.partition('/')[2]}.py"  # evaluate.load looks for the repository's name
        if script not in upload.files:
            fail(f"--repo: evaluate would look for {script}, which the folder lacks. Use ORG/video_retrieval.")
        load_metric(str(upload.folder / script))


def check_model(upload: Upload, repo: str, report: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Check that a model or adapter loads and that its card's scores are its own (`report` of `gve eval`).

    Returns:
        (3, D) vectors of the samples by loader, to compare with what comes back.
    """
    card, folder, adapter = read_card(upload), upload.folder, "adapter_config.json" in upload.files
    if not adapter and repo not in card.content:
        fail(f"README.md: its code does not load {repo!r}. Write it with `gve card --name {repo}`.")
    _check_scores(folder, card, report)
    if adapter:
        return {"PeftModel": _adapter_vectors(folder)}
    if "modules.json" not in upload.files:
        fail(f"PATH: {str(folder)!r} has no modules.json, so loaders would guess the pooling. Save the model again.")
    if not any(name.endswith("_gve.py") for name in upload.files):
        fail("PATH: has no *_gve.py, so nobody could load it. Save the model with save_embedder.")
    found = _vectors(folder)
    worst = largest_difference(found)
    if not worst <= tolerance_of(folder):
        fail(f"PATH: AutoModel and SentenceTransformer differ by {worst:.1e}. Save the model again.")
    return found


def tolerance_of(folder: Path) -> float:
    """`tolerance` of a model folder; an adapter has its base model's dtype."""
    path = folder / "config.json"
    return tolerance(json.loads(path.read_text(encoding="utf-8")).get("dtype") if path.is_file() else None)


def _check_scores(folder: Path, card: ModelCard, report: Mapping[str, Any] | None) -> None:
    """The scores in a card must come from a report on these weights."""
    written = {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results or []}
    if report is None:
        if written:
            fail(f"--report: missing, and README.md shows {len(written)} scores. Name the report they come from.")
        return
    check_fingerprint(folder, report)
    expected = {(one.dataset_name, one.metric_type): one.metric_value for one in eval_results(report)}
    wrong = sorted(key for key in expected.keys() | written.keys() if expected.get(key) != written.get(key))
    if wrong:
        fail(f"README.md: {' '.join(wrong[0])} is not what the report says. Write the card with `gve card --report`.")


def _vectors(folder: Path) -> dict[str, np.ndarray]:
    """(3, D) by AutoModel and by SentenceTransformer, one model in memory at a time."""
    from sentence_transformers import SentenceTransformer  # seconds to import, with transformers
    from transformers import AutoModel, AutoProcessor

    try:
        read_model(folder)  # names what is missing
        model = load_whole(AutoModel, folder, argument="PATH", dtype="auto")
        found = {"AutoModel": model_vectors(model, AutoProcessor.from_pretrained(folder))}
        del model
        gc.collect()
        sentence = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "auto"})
    except (OSError, RuntimeError, SafetensorError) as error:
        fail(f"PATH: {str(folder)!r} does not load ({str(error).strip().splitlines()[0]}). Save the model again.")
    return found | {"SentenceTransformer": sentence_vectors(sentence)}


def _adapter_vectors(folder: Path) -> np.ndarray:
    """(3, D) by the published base model and adapter; every adapter tensor must find its layer."""
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base or Path(base).exists() or Path(base).is_absolute():
        fail(
            f"adapter_config.json: base_model_name_or_path must be the Hub name of a published model, got {base!r}. "
            "Push the base model first and name it there."
        )
    from transformers import AutoModel, AutoProcessor

    from gve.encoding.adapters import load_adapter

    try:
        model = AutoModel.from_pretrained(base, dtype="auto")
        processor = AutoProcessor.from_pretrained(base)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        fail(f"adapter_config.json: its base {base!r} does not load ({reason}). Push the base model first.")
    return model_vectors(load_adapter(model, folder).eval(), processor)


def _left_out(found: Sequence[str], files: Sequence[str]) -> tuple[str, ...]:
    """Paths that stay; a top folder that stays whole appears once."""
    taken = {PurePosixPath(name).parts[0] for name in files}
    left = (PurePosixPath(name) for name in found if name not in set(files))
    short = (str(path) if len(path.parts) == 1 or path.parts[0] in taken else f"{path.parts[0]}/" for path in left)
    return tuple(dict.fromkeys(short))


def _check_limits(upload: Upload) -> None:
    large = [name for name in upload.files if upload.size(name) > FILE_BYTES]
    if large:
        fail(
            f"{large[0]}: must be at most {_size(FILE_BYTES)} for the Hub, got {_size(upload.size(large[0]))}. Save it "
            "in smaller pieces; models take max_shard_size."
        )
    if len(upload.files) > REPO_FILES:
        fail(f"PATH: the Hub takes {REPO_FILES} files in a repository, got {len(upload.files)}. Write larger shards.")
    for folder, count in Counter(str(PurePosixPath(name).parent) for name in upload.files).items():
        if count > FOLDER_FILES:
            fail(f"{folder}: the Hub takes {FOLDER_FILES} files in a folder, got {count}. Write larger shards.")


def _check_secrets(upload: Upload) -> None:
    """Refuse text that looks like a token or a private key."""
    for name in upload.files:
        if name.endswith(_TEXT_SUFFIXES) and upload.size(name) <= _TEXT_BYTES:
            match = _SECRET.search((upload.folder / name).read_bytes())
            if match:
                fail(f"{name}: holds a secret ({match[0][:6].decode()}...). Take it out and revoke it.")


def _size(size: float) -> str:
    """Size in powers of a thousand, as the Hub counts."""
    if size < 1000:
        return f"{size} B"
    power = min(3, (len(str(int(size))) - 1) // 3)
    return f"{size / 1000**power:.1f} {('kB', 'MB', 'GB')[power - 1]}"
