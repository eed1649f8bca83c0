"""Build a package whose Cython code calls fastdrop's kernels."""

from Cython.Build import cythonize
from setuptools import Extension, setup

import fastdrop

rows = Extension("rows", ["rows.pyx"], include_dirs=[fastdrop.get_include()])
setup(name="rows", version="1.0", ext_modules=cythonize([rows], language_level=3))
