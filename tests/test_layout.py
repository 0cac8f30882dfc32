"""The layout's and the house's own rules, held over the syntax trees of all files."""

import ast
import fnmatch
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "media": set(),
    "modeling_gve": {"media"},
    "encoding": {"media", "modeling_gve"},
    "tiny": {"media", "modeling_gve", "encoding"},
    "hub_datasets": {"media"},
    "eval": {"media", "hub_datasets"},
    "trainers": {"media", "modeling_gve", "encoding", "tiny", "hub_datasets", "eval"},
    "model_cards": {"media", "modeling_gve", "encoding", "hub_datasets", "eval"},
}
"""Layer -> the other layers of ours that it may import: anyone the media layer, nobody below trainers a model."""
MEDIA = ("av1", "container", "convert", "frames", "image", "index", "media", "scan", "source", "stream", "video")
MEDIA_MODULES = {f"{name}_gve" for name in MEDIA} | {"video_writer"}
"""The media layer's files in modeling_gve; no model needs the writer."""
MEDIA_NAMES = {"read_video", "video_info", "Frames", "Limits", "VideoInfo", "__version__"}
"""Names of the package itself that come from the media layer, or from no layer."""
FOLDERS = ["modeling_gve", "hub_datasets", "eval", "trainers", "model_cards"]
OPENS_MODELS = {ROOT / "eval" / name for name in ("models.py", "doctor_command.py")}
"""Files of eval that may import modeling_gve: one opens models for the commands, one tries the model that ships."""

SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
METRIC = ROOT / "eval" / "video_retrieval"
HUB_FILES = sorted((ROOT / "modeling_gve").glob("*_gve.py"))
METRIC_FILES = [path for path in sorted(METRIC.glob("*.py")) if path.name != "__init__.py"]
SUFFIXES = (".py", ".md", ".toml", ".yaml", ".jinja", ".json", ".txt", ".in", ".cff")
TEXTS = [
    *(path for path in ROOT.iterdir() if path.is_file() and (path.suffix in SUFFIXES or path.name == "Makefile")),
    *(path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES),
    ROOT / ".ci" / "run",
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_NAMES = re.compile(
    r"os\.(fork|getloadavg|get[ug]id|gete[ug]id|killpg|mkfifo|nice|O_(CLOEXEC|NOFOLLOW|NONBLOCK)|pread|pwrite|sched_\w+|"
    r"setsid|statvfs|uname)|signal\.(alarm|setitimer|SIG(ALRM|CHLD|HUP|KILL|PIPE|USR1|USR2))|socket\.AF_UNIX"
)
MAX_LINES, MAX_FUNCTION = 400, 60
MACHINE_PATH = re.compile(r"(?<![\w.$)}])/(?:work|root|opt|mnt|home|Users)/\w")
REGISTRY = re.compile(r"pypi\.|pythonhosted|download\.pytorch|index-url")


def name_of(path):
    return str(path.relative_to(ROOT))


def layer_of(path):
    """The layer of a file: its folder, or the one beneath modeling_gve."""
    top, below = path.relative_to(ROOT).parts[:2]
    return below if top == "modeling_gve" and below in MAY_IMPORT else top


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def absolute_imports(tree):
    """Names of the modules that a file imports; `from gve import eval` counts as gve.eval."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from [node.module] if node.module != "gve" else [f"gve.{alias.name}" for alias in node.names]


def relative_imports(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


def imported_layers(tree):
    """The layers of ours that a file imports; what is no folder of its own under gve lies in modeling_gve."""
    for name in absolute_imports(tree):
        head, _, rest = name.partition(".")
        if head == "gve":
            part = rest.partition(".")[0]
            media = part in MEDIA_MODULES | MEDIA_NAMES
            yield "media" if media else part if part in MAY_IMPORT else "modeling_gve"


def test_import_direction():
    for path in SOURCES:
        folder = layer_of(path)
        allowed = MAY_IMPORT[folder] if METRIC not in path.parents else set()
        allowed = allowed | {"modeling_gve", "encoding"} if path in OPENS_MODELS else allowed
        assert set(imported_layers(tree_of(path))) - {folder} <= allowed, name_of(path)
        if folder != "modeling_gve" and METRIC not in path.parents:
            assert not relative_imports(tree_of(path)), f"{name_of(path)}: imports of ours are absolute here"


def test_the_rule_sees_what_it_forbids():
    tree = ast.parse("import gve.trainers.losses\nfrom gve import eval\nfrom gve.tiny import x\nimport gve.chat_gve")
    assert set(imported_layers(tree)) == {"trainers", "eval", "tiny", "modeling_gve"}
    media = ast.parse("from gve import read_video\nfrom gve.media_gve import media_kind")
    assert set(imported_layers(media)) == {"media"}


def test_the_media_layer_stands_alone():
    """Its files import one another and light libraries; torch, where a frame is resized, and only then."""
    for module in MEDIA_MODULES:
        tree = tree_of(ROOT / "modeling_gve" / f"{module}.py")
        for node in relative_imports(tree):
            assert node.module in MEDIA_MODULES, f"{module}: {node.module}"
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        used = {name.partition(".")[0] for name in absolute_imports(top)} - set(sys.stdlib_module_names)
        assert used <= {"av", "numpy", "PIL"}, f"{module}: {used}"


def test_windows_is_asked_for_nothing_it_lacks():
    """Modules of Unix are imported where they are used, its functions called in a line that looks at sys.platform."""
    for path in SOURCES:
        tree, lines = tree_of(path), path.read_text(encoding="utf-8").splitlines()
        top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not UNIX_MODULES.intersection(absolute_imports(top)), name_of(path)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and UNIX_NAMES.fullmatch(ast.unparse(node)):
                line = lines[node.lineno - 1]
                assert "sys.platform" in line, f"{name_of(path)}: {line.strip()}"


def test_commands_are_imported_lazily():
    for node in tree_of(ROOT / "modeling_gve" / "__main__.py").body:
        assert not (isinstance(node, ast.Import | ast.ImportFrom) and "gve" in ast.unparse(node)), ast.unparse(node)


def test_hub_safe():
    """What the loaders of transformers and evaluate copy: `from .sibling import name` with the sibling beside it."""
    for path in [*HUB_FILES, *METRIC_FILES]:
        tree, name = tree_of(path), name_of(path)
        for node in relative_imports(tree):
            line = f"{name}: {ast.unparse(node)}"
            assert node.level == 1, line
            assert node.module and (path.parent / f"{node.module}.py").is_file(), line
            assert path not in HUB_FILES or node.module.endswith("_gve"), f"{line} is not copied to the Hub"
        assert not [each for each in absolute_imports(tree) if each.partition(".")[0] == "gve"], name
        # the loaders read lines, not syntax, so a docstring may not look like an import
        for module in re.findall(r"^\s*from\s+\.(\S+)\s+import", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert (path.parent / f"{module}.py").is_file(), f"{name}: a line reads as an import of .{module}"


def test_metric_imports_its_siblings_and_numpy():
    """evaluate's loader copies the siblings of the main file, not theirs, so theirs must be among them."""
    copied = {node.module for node in relative_imports(tree_of(METRIC / "video_retrieval.py"))}
    assert copied
    allowed = {"video_retrieval.py": {"datasets", "evaluate"}, "app.py": {"evaluate", "gradio"}}
    for path in METRIC_FILES:
        used = {name.partition(".")[0] for name in absolute_imports(tree_of(path))} - set(sys.stdlib_module_names)
        assert used <= {"numpy"} | allowed.get(path.name, set()), path.name
        assert {node.module for node in relative_imports(tree_of(path))} <= copied, path.name


def test_every_package_is_listed():
    """setuptools cannot find packages under a prefix, so pyproject.toml lists them by hand."""
    tool = PYPROJECT["tool"]["setuptools"]
    names = {"modeling_gve": "gve"} | {folder: f"gve.{folder}" for folder in FOLDERS if folder != "modeling_gve"}
    folders = {path.parent.relative_to(ROOT).parts for path in SOURCES}
    assert {".".join((names[parts[0]], *parts[1:])) for parts in folders} == set(tool["packages"])
    assert len(tool["packages"]) == len(set(tool["packages"]))
    assert {name: folder for folder, name in names.items()} == tool["package-dir"]
    assert not [parts for parts in folders if not ROOT.joinpath(*parts, "__init__.py").is_file()]


def test_every_data_file_ships():
    """What is no Python and no documentation matches a pattern of package-data."""
    tool = PYPROJECT["tool"]["setuptools"]
    dirs = {package: _folder_of(package, tool["package-dir"]) for package in tool["packages"]}
    shipped = set()
    for package, patterns in tool["package-data"].items():
        files = [path for path in dirs[package].rglob("*") if path.is_file()]
        for pattern in patterns:
            matches = {path for path in files if fnmatch.fnmatch(str(path.relative_to(dirs[package])), pattern)}
            assert matches, f"{package}: {pattern} matches no file"
            shipped |= matches
    for path in (path for folder in dirs.values() for path in folder.iterdir() if path.is_file()):
        assert path.suffix in (".py", ".pyc") or path.name == "README.md" or path in shipped, name_of(path)


def _folder_of(package, roots):
    top = max((name for name in roots if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(roots[top], *package.removeprefix(top).strip(".").split("."))


def test_folders_stay_out_of_sys_modules():
    """A second copy under the bare name would have other classes."""
    import gve  # noqa: F401

    assert not set(FOLDERS) & set(sys.modules)


def test_sizes():
    for path in [*SOURCES, *TESTS]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, name_of(path)
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{name_of(path)}: {node.name}"


def test_texts_are_plain():
    """ASCII alone, no path of a machine, no name of a package registry, no end of line left open."""
    for path in TEXTS:
        content = path.read_bytes()
        assert content.isascii(), name_of(path)
        assert not content or content.endswith(b"\n"), name_of(path)
        assert not MACHINE_PATH.findall(content.decode()), name_of(path)
        assert path == Path(__file__) or not REGISTRY.findall(content.decode()), name_of(path)
