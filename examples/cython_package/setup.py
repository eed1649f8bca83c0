"""Build a package whose Cython code calls fastdrop's kernels."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastdrop

rows = Extension("rows", ["rows.pyx"], include_dirs=[fastdrop.get_include()])
# Cython does not find the .pxd files of an editable install by itself.
declarations = [str(Path(fastdrop.__file__).parents[1])]
setup(
    name="rows",
    version="1.0",
    ext_modules=cythonize([rows], language_level=3, include_path=declarations),
)
