import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gve
import gve.trainers

FOLDER = Path(gve.__file__).parent


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


def test_the_version_is_read_without_an_import():
    """setuptools reads a literal; for anything else it would import the package while it builds it."""
    assigned = [node for node in ast.parse((FOLDER / "__init__.py").read_text()).body if isinstance(node, ast.Assign)]
    values = {node.targets[0].id: node.value for node in assigned}
    assert ast.literal_eval(values["__version__"]) == gve.__version__
    assert (FOLDER / "py.typed").exists()


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
