"""Type checkers accept what users write, and the stubs agree with the modules."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

import fastdrop as fd
from support import PACKAGE, ROOT, environment, run

USER = ROOT / "tests" / "data" / "typed_user.py"
STUBS = sorted(PACKAGE.rglob("*.pyi"))


def test_a_user_s_file_runs():
    pytest.importorskip("typing_extensions", reason="typing_extensions is in the group lint")
    runpy.run_path(str(USER))


def test_a_user_s_file_names_everything_public():
    named = set(re.findall(r"\w+", USER.read_text("utf-8")))
    assert set(fd.__all__) <= named, set(fd.__all__) - named


WRONG = 'import fastdrop as fd\n\nfd.dropout([1.0], keep_prob="0.9")\nfd.keep_mask(8, keep_prob=0.5, mode="x")\n'


def test_mypy_passes_a_user_s_file_and_finds_what_is_wrong(tmp_path):
    """The errors show that not everything is typed as Any."""
    pytest.importorskip("mypy", reason="mypy is in the group lint")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    # It is silent about the package, as it would be if the package were in site-packages.
    options = ["--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path)]
    found = run([sys.executable, "-m", "mypy", *options, str(USER), str(wrong)], cwd=ROOT).stdout
    errors = re.findall(r"(\w+\.py):(\d+): error", found)
    assert errors == [("wrong.py", "3"), ("wrong.py", "4")], found


def test_pyright_passes_a_user_s_file_and_finds_what_is_wrong(tmp_path):
    pytest.importorskip("basedpyright", reason="basedpyright is in the group lint")
    # It does not follow the hook that an editable install imports by.
    config = {"typeCheckingMode": "strict", "extraPaths": [str(Path(fd.__file__).parents[1])]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    (tmp_path / "user.py").write_text(USER.read_text("utf-8"))
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    found = json.loads(run(command, cwd=tmp_path).stdout)["generalDiagnostics"]
    where = {(Path(said["file"]).name, said["range"]["start"]["line"]) for said in found}
    assert where == {("wrong.py", 2), ("wrong.py", 3)}


# The types of frameworks are partly unknown.
OF_OTHERS = re.compile(r"fastdrop\.(?:torch|jax|dask|thinc|keras|commands|_pyinstaller)\b")


def test_pyright_knows_the_type_of_everything_public(tmp_path):
    pytest.importorskip("basedpyright", reason="basedpyright is in the group lint")
    if PACKAGE.parent != ROOT:
        pytest.skip("it is a checkout that is looked at")
    options = ["--pythonpath", sys.executable, "--ignoreexternal", "--outputjson", "--verifytypes", PACKAGE.name]
    command = [sys.executable, "-m", "basedpyright", *options]
    symbols = json.loads(run(command, cwd=tmp_path, env=environment()).stdout)["typeCompleteness"]["symbols"]
    exported = {symbol["name"]: symbol for symbol in symbols if symbol["isExported"]}
    assert {f"fastdrop.{name}" for name in fd.__all__ if name not in ("layers", "reference")} <= set(exported)
    known = {name for name, symbol in exported.items() if symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]}
    assert not {name for name in set(exported) - known if not OF_OTHERS.match(name)}


def names_in(arguments):
    return ", ".join(argument.arg for argument in arguments.args)


@pytest.mark.parametrize("stub", STUBS, ids=lambda path: path.stem)
def test_a_stub_has_the_functions_of_its_module(stub):
    if stub.parent.name in fd._ADAPTERS:
        pytest.importorskip(stub.parent.name, reason="the module of an adapter imports an optional dependency")
    module = importlib.import_module(".".join(stub.relative_to(PACKAGE.parent).with_suffix("").parts))
    declared = ast.parse(stub.read_text("utf-8")).body
    functions = {node.name: names_in(node.args) for node in declared if isinstance(node, ast.FunctionDef)}
    compiled = {
        name: ", ".join(inspect.signature(value).parameters)
        for name, value in vars(module).items()
        if inspect.isroutine(value) and value.__module__ == module.__name__
    }
    assert functions == compiled
    assert all(hasattr(module, node.target.id) for node in declared if isinstance(node, ast.AnnAssign))
