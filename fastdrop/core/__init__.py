"""From a call to a kernel: arguments are prepared, arrays measured, sweeps run on threads."""

import sys

_package = sys.modules["fastdrop"]
if getattr(_package, "__distribution__", None) != "fastdrop-kernels":
    raise ImportError(
        f"the files of another project called fastdrop are mixed with these in {_package.__path__[0]}: run pip "
        "uninstall fastdrop fastdrop-kernels, and install again the one that you want"
    )
