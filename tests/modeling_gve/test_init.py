import ast
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.dynamic_module_utils import get_relative_imports

import gve
import gve.trainers

FOLDER = Path(gve.__file__).parent
SOURCES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("package", [gve, gve.trainers])
def test_public_names(package):
    """`__all__`, the table of modules and what type checkers read name the same things, and each is there."""
    tree = ast.parse(Path(package.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    checked = {alias.name: node.module.removeprefix("gve.trainers.") for node in typed.body for alias in node.names}
    assert checked == package._MODULES
    assert sorted(package._MODULES) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    scope = {}
    exec(f"from {package.__name__} import *", scope)
    assert all(scope[name] is getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = package.Nothing


def test_version_and_marker():
    assert gve.__version__ == "0.1.0"
    assert (FOLDER / "py.typed").exists()


def test_the_version_is_read_without_an_import():
    """setuptools reads a literal; for anything else it would import the package while it builds it."""
    values = {
        node.targets[0].id: node.value
        for node in ast.parse((FOLDER / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign)
    }
    assert ast.literal_eval(values["__version__"]) == gve.__version__


def test_import_is_light():
    """Neither numpy nor anything larger: what a name needs comes with the name."""
    code = """
import sys
import gve, gve.trainers
third = {"av", "datasets", "huggingface_hub", "matplotlib", "numpy", "PIL", "pyarrow", "torch", "transformers"}
assert not third & set(sys.modules), third & set(sys.modules)
gve.read_video, gve.Limits
assert not {"torch", "transformers"} & set(sys.modules)
gve.GVEConfig
assert "transformers" in sys.modules and "gve.modeling_gve" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
