"""`inspect.signature` shows the real parameters of everything public."""

from __future__ import annotations

import ast
import inspect
import re
import typing

import pytest

import fastdrop as fd
from fastdrop import layers
from support import PACKAGE

COMPILED = {"Stream": "stream", "Tile": "stream", "Mask": "mask", "GaussianNoise": "noise"}
NAMES = [name for name in dir(fd) if not name.startswith("_") and callable(getattr(fd, name))]
LAYERS = layers.__all__


def public_things():
    for module, names in ((fd, NAMES), (layers, LAYERS), (fd.reference, fd.reference.__all__)):
        for name in names:
            thing = getattr(module, name)
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                methods = [method for method in dir(thing) if not method.startswith("_")]
                for method in (*methods, *["__call__"] * (module is layers)):
                    if callable(getattr(thing, method)):
                        yield f"{module.__name__}.{name}.{method}", getattr(thing, method)


THINGS = dict(public_things())


@pytest.mark.parametrize("name", THINGS)
def test_everything_public_has_a_signature_and_a_docstring(name):
    signature = inspect.signature(THINGS[name])
    assert not {"args", "kwargs"} & set(signature.parameters), signature
    text = inspect.getdoc(THINGS[name])
    if not name.startswith("fastdrop.reference."):  # the compiled calls document the parameters
        for parameter in signature.parameters:
            assert parameter in ("self", "_prefix") or re.search(rf"\b{parameter}\b.* : ", text), parameter


@pytest.mark.parametrize("name", THINGS)
def test_every_type_of_a_signature_can_be_found(name):
    """Programs that read signatures resolve the names in them, as typing.get_type_hints does."""
    thing = THINGS[name]
    assert typing.get_type_hints(thing) is not None
    if inspect.isclass(thing):
        assert typing.get_type_hints(thing.__init__) is not None


def source_of(path, kind):
    """The parameters of a class, with their defaults, as its source has them."""
    tree = ast.parse(path.read_text("utf-8"))
    class_ = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind)
    init = next(node for node in class_.body if getattr(node, "name", "") == "__init__")
    for argument in (*init.args.args, *init.args.kwonlyargs):
        argument.annotation = None
    return ast.unparse(init.args).replace("self, ", "").replace(" ", "")


@pytest.mark.parametrize("kind", COMPILED)
def test_a_compiled_class_shows_the_parameters_of_its_source(kind):
    cls = getattr(fd, kind)
    in_source = source_of(PACKAGE / f"{COMPILED[kind]}.py", kind)
    assert str(inspect.signature(cls)).replace(" ", "") == f"({in_source})"
    assert not cls.__doc__.startswith(kind)


def test_a_subclass_shows_its_own():
    class Named(fd.Stream):
        def __init__(self, name):
            super().__init__(1)

    assert list(inspect.signature(Named).parameters) == ["name"]


def test_the_names_are_all_here():
    assert set(COMPILED) <= set(NAMES)
    assert {"DropConnect", "Dropout", "DropoutAdd"} <= set(LAYERS)
    of_module = {name for name, value in vars(layers).items() if getattr(value, "__module__", "") == layers.__name__}
    assert set(LAYERS) == {name for name in of_module if name[0].isupper()}
