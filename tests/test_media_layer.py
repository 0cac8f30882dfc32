"""Media are opened, and known by their suffix, in one place: a rule over the syntax trees of all files."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gve.media_gve import IMAGE_SUFFIXES, VIDEO_SUFFIXES

ROOT = Path(__file__).parents[1]
FOLDERS = ("modeling_gve", "eval", "hub_datasets", "trainers", "model_cards")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OPENING_FILES = ("media_gve", "image_gve", "container_gve", "stream_gve", "video_writer")
OPENERS = {ROOT / "modeling_gve" / f"{name}.py" for name in OPENING_FILES}
"""The media layer's own files that open one, to read it or, the last, to write it."""
SUFFIXES_OF = ROOT / "modeling_gve" / "media_gve.py"
"""The one table of suffixes, and the names of those that we write."""
OPENING = re.compile(
    r"av(\.container)?(\.core)?\.open|PIL\.Image\.open|cv2\.(VideoCapture|imread)|imageio\b.*|decord\b.*"
)


def openings(tree: ast.AST) -> Iterator[str]:
    """What opens media in a file, under its full name, whatever it was imported as."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name, _, rest = ast.unparse(node).partition(".")
            full = f"{known.get(name, '')}.{rest}".rstrip(".")
            if not OPENING.fullmatch(full) and rest:  # "import PIL.Image" is called by its own name
                full = ast.unparse(node) if any(each.startswith(f"{name}.") for each in known) else ""
            if OPENING.fullmatch(full):
                yield f"line {node.lineno}: {full}"


def suffix_literals(tree: ast.AST) -> Iterator[str]:
    """Strings, or pieces of them between braces, that are a suffix or a pattern of one; names of files are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.lower().lstrip("*/")
            if text in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
                yield f"line {node.lineno}: {node.value!r}"


def tree_of(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def broken(rule: Callable[[ast.AST], Iterator[str]], layer: set[Path]) -> list[str]:
    """Every line outside the layer that breaks a rule."""
    paths = [path for path in SOURCES if path not in layer]
    return [f"{path.relative_to(ROOT)}, {line}" for path in paths for line in rule(tree_of(path))]


def test_only_the_layer_opens_media():
    assert broken(openings, OPENERS) == []
    assert [path.name for path in OPENERS if not list(openings(tree_of(path)))] == [], "opens nothing any more"


def test_only_the_layer_knows_suffixes():
    assert broken(suffix_literals, {SUFFIXES_OF}) == []
    assert list(suffix_literals(tree_of(SUFFIXES_OF)))


def test_the_rules_see_what_they_forbid():
    for text in (
        "import av\nwith av.open(x) as c: pass",
        "import av as video\nvideo.open(x)",
        "from av import open as start\nstart(x)",
        "def read():\n    import av\n    return av.open(x, 'w')",
        "from PIL import Image as Picture\nmap(Picture.open, x)",
        "import PIL.Image\nPIL.Image.open(x)",
        "import PIL\nPIL.Image.open(x)",
        "import cv2\ncv2.VideoCapture(x)",
    ):
        assert len(list(openings(ast.parse(text)))) == 1, text
    for text in ("{'.mp4'}", "x.suffix == '.PNG'", "f'{name}.mp4'", "glob('*.jpg')", "rglob('**/*.ts')"):
        assert len(list(suffix_literals(ast.parse(text)))) == 1, text
    allowed = (
        "import av\nfrom PIL import Image\nopen(x)\npath.open()\nav.VideoFrame\nImage.fromarray(x)\nself.av.open(x)"
    )
    assert not list(openings(ast.parse(allowed)))
    assert not list(suffix_literals(ast.parse("x = 'radar.png', 'mp4', '.json', f'{name}.txt', 'see a.mp4'")))
