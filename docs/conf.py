"""The Sphinx configuration of these pages. Neither the build nor the reader's browser needs the network.

The build runs the examples. Formulas become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import fastdrop

project = "fastdrop"
author = "The fastdrop developers"
copyright = author
version = release = fastdrop.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_gallery.gen_gallery"]
# The pages of the functions of an adapter show its docstrings, so they need its framework, which may be missing.
without = [name for name in ("dask", "jax", "keras", "thinc", "torch") if not find_spec(name)]
os.environ.setdefault("KERAS_BACKEND", "torch" if "jax" in without else "jax")  # Keras's default is TensorFlow
exclude_patterns = ["_build", *(f"reference/{name}.*" for name in without)]
# No example has a space in its name, but the path of the checkout may have one.
suppress_warnings = ["toc.excluded", "sphinx_gallery.space_in_filename"]
nitpicky = False  # links to the types of NumPy would need an inventory from the network

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_typehints = "none"  # the sections of numpydoc name the types in words

NOT_SHOWN = "mlp_digits|dropconnect|flax_modules|numba_loop|larger_than_memory|plot_uncertainty|setup"
if "torch" in without:
    NOT_SHOWN += "|plot_pytorch_training"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": rf"({NOT_SHOWN})\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "show_memory": False,
    "show_signature": False,
    "image_srcset": ["2x"],
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "fastdrop"
html_static_path = ["_static"]
html_css_files = ["fastdrop.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_math_renderer = "mathml"
# These pages have no pages below them, so a navigation bar would be empty.
html_sidebars = {page: [] for page in (
    "index", "start", "dropout", "forms", "reproducibility", "how-it-is-fast", "coming-from", "api", "benchmarks",
)}  # fmt: skip
html_theme_options = {
    "logo": {"text": "fastdrop"},
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def mathml(writer: Any, node: nodes.Element) -> None:
    """Write a formula, within a line or on a line of its own."""
    block = isinstance(node, nodes.math_block)
    tex = re.sub(r"\\pmod\{(.*?)\}\}?", r"\\quad(\\mathrm{mod}\\ \1})", node.astext())
    tex = re.sub(r"\\[Bb]igg?[lr]?(?![a-zA-Z])", "", tex)  # MathML stretches brackets by itself
    tex = tex.replace(r"\dots", r"\ldots")
    formula = tex2mathml(tex, as_block=block)
    writer.body.append(f'<div class="formula">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    for name in without:
        print(f"{name} is not installed, so these pages will not have the reference of fastdrop.{name}")
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
