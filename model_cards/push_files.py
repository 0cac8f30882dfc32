"""What may leave this machine: files by an allow-list for each kind of repository, their sizes, and the Hub's limits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gve.eval.console import fail
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.uvrb import SETS

FILE_BYTES = 50_000_000_000
"""Size of one file at most: no larger one can be downloaded over plain HTTP (`MAX_HTTP_DOWNLOAD_SIZE`)."""
FOLDER_FILES = 10_000
"""Files of one folder at most."""
REPO_FILES = 100_000
"""Files of one repository at most."""

_TEXT_SUFFIXES = (".md", ".json", ".py", ".txt", ".jinja", ".yaml", ".css")
_TEXT_BYTES = 20_000_000
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{20,}|\b(?:ghp|sk)[_-][A-Za-z0-9]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")

_SLUGS = "|".join(map(re.escape, (task.slug for task in SETS.values())))
_MODEL = (
    r"README\.md|LICENSE",
    r"config\.json|generation_config\.json",
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json",
    r"adapter_config\.json|adapter_model\.safetensors",
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt",
    r"processor_config\.json|preprocessor_config\.json|video_preprocessor_config\.json|chat_template\.(jinja|json)",
    r"modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json|\d_[A-Z][A-Za-z]+/config\.json",
    r"[a-z0-9_]+_gve\.py",
    r"assets/[\w-]+\.(png|jpg|svg)",
)
_TABLES = r"(corpus|queries|qrels|top_ranked|times)"


@dataclass(frozen=True)
class Kind:
    """A kind of repository that can be published.

    Attributes:
        name: Its word on the command line.
        repo_type: What the Hub calls it.
        patterns: What may be uploaded: regular expressions of whole paths.
        needed: Files that must be there.
        hint: What makes such a folder.
    """

    name: str
    repo_type: str
    patterns: tuple[str, ...]
    needed: tuple[str, ...]
    hint: str

    def allows(self, path: str) -> bool:
        """Whether a file, named as in the repository, may be uploaded."""
        return any(re.fullmatch(pattern, path) for pattern in self.patterns)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("model", "model", _MODEL, ("README.md",), "gve train or save_embedder, and gve card --out README.md"),
        Kind(
            "uvrb",
            "dataset",
            (r"README\.md|LICENSE", rf"({_SLUGS})-{_TABLES}/[\w-]+\.parquet"),
            ("README.md",),
            "gve world",
        ),
        Kind(
            "uvrd",
            "dataset",
            (r"README\.md|LICENSE", rf"({'|'.join(TASKS)})/train-[\w-]+\.parquet"),
            ("README.md",),
            "gve world or gve synth build",
        ),
        Kind(
            "metric",
            "space",
            (r"README\.md|LICENSE|requirements\.txt", r"(?!__)\w+\.py"),
            ("README.md", "app.py", "requirements.txt"),
            "the folder eval/video_retrieval of this project",
        ),
        Kind(
            "space",
            "space",
            (
                r"README\.md|LICENSE|requirements\.txt|packages\.txt",
                r"(?!__)\w+\.py",
                r"assets/[\w-]+\.(png|jpg|svg|mp4|css)",
            ),
            ("README.md", "app.py", "requirements.txt"),
            "a Gradio app with the Hub's front matter",
        ),
    )
}
"""The kinds by name."""


@dataclass(frozen=True)
class Upload:
    """What would be uploaded of a folder.

    Attributes:
        kind: Of the repository.
        folder: Where the files are.
        files: Their names, as in the repository.
        left_out: Names of the folder's other files; of folders of which nothing is taken, the folder's with a slash.
    """

    kind: Kind
    folder: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.folder / name).stat().st_size

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(map(self.size, self.files))


def collect(kind: Kind, folder: Path) -> Upload:
    """Choose the files of a folder that may be uploaded, and refuse those that may not be among them.

    Args:
        kind: Of the repository.
        folder: The folder.

    Returns:
        The upload.

    Raises:
        ValueError: If the folder or a needed file is missing, a file is beyond the Hub's limits, or one holds a secret.
    """
    if not folder.is_dir():
        fail(f"PATH: {str(folder)!r} is no folder; one made by {kind.hint} is accepted; check the path")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = tuple(name for name in found if kind.allows(name))
    upload = Upload(kind, folder, files, _summary([name for name in found if name not in set(files)], files))
    missing = [name for name in kind.needed if name not in files]
    if missing:
        fail(f"PATH: {str(folder)!r} has no {', '.join(missing)}; a folder made by {kind.hint} is accepted; make it")
    _check_limits(upload)
    _check_secrets(upload)
    return upload


def describe(upload: Upload) -> str:
    """The files with their sizes, and what stays behind.

    Args:
        upload: The upload.

    Returns:
        Lines of text.
    """
    lines = [f"{_bytes(upload.size(name)):>10}  {name}" for name in upload.files]
    lines.append(f"{_bytes(upload.total):>10}  in {len(upload.files)} files")
    if upload.left_out:
        lines.append("not uploaded: " + ", ".join(upload.left_out))
    return "\n".join(lines) + "\n"


def _summary(names: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Names of files that stay, by their first folder where all of it stays."""
    kept = {PurePosixPath(name).parts[0] for name in taken}
    out = dict.fromkeys(
        name if len(parts := PurePosixPath(name).parts) == 1 or parts[0] in kept else f"{parts[0]}/" for name in names
    )
    return tuple(out)


def _check_limits(upload: Upload) -> None:
    large = [name for name in upload.files if upload.size(name) > FILE_BYTES]
    if large:
        fail(
            f"{large[0]}: {_bytes(upload.size(large[0]))}; the Hub takes files of up to {_bytes(FILE_BYTES)}; save it in "
            "smaller pieces, a model with max_shard_size"
        )
    if len(upload.files) > REPO_FILES:
        fail(f"PATH: {len(upload.files)} files; the Hub takes {REPO_FILES} in a repository; write larger shards")
    folders: dict[str, int] = {}
    for name in upload.files:
        parent = str(PurePosixPath(name).parent)
        folders[parent] = folders.get(parent, 0) + 1
    for parent, count in folders.items():
        if count > FOLDER_FILES:
            fail(f"{parent}: {count} files; the Hub takes {FOLDER_FILES} in a folder; write larger shards")


def _check_secrets(upload: Upload) -> None:
    """Refuse text that holds what looks like a token or a private key."""
    for name in upload.files:
        if name.endswith(_TEXT_SUFFIXES) and upload.size(name) <= _TEXT_BYTES:
            match = _SECRET.search((upload.folder / name).read_bytes())
            if match:
                shown = match[0][:6].decode()
                fail(f"{name}: holds a secret ({shown}...); files without one are accepted; take it out and revoke it")


def _bytes(size: float) -> str:
    """A size in words, in powers of a thousand as the Hub counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")
