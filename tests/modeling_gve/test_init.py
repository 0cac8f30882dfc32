import ast
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_imports
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING

import gve

FOLDER = Path(gve.__file__).parent
SOURCES = sorted(FOLDER.glob("*.py"))


def test_public_names():
    assert gve.__version__ == "0.1.0"
    assert sorted(gve.__all__) == gve.__all__ and all(hasattr(gve, name) for name in gve.__all__)
    assert (FOLDER / "py.typed").exists()


def test_the_video_processor_is_registered():
    assert gve.GVEVideoProcessor in VIDEO_PROCESSOR_MAPPING._extra_content[gve.GVEConfig].values()


def test_hub_files_import_only_siblings_by_name():
    """They are copied into one flat folder, where only `from .name import x` works."""
    for path in FOLDER.glob("*_gve.py"):
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and node.module.endswith("_gve"), path.name
                named.add(node.module)
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "gve" for name in names), path.name
            assert not (isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == "gve")
        # what the Hub's text search finds is what the syntax tree says: no docstring looks like an import
        assert set(get_relative_imports(path)) == named, path.name


def test_files_are_short_and_ascii():
    for path in SOURCES:
        text = path.read_text()
        assert text.isascii() and len(text.splitlines()) <= 400, path.name
