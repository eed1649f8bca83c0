"""What a frozen program needs of fastdrop: compiled modules import each other, which no source code shows."""

from pathlib import Path

import fastdrop

# A program that uses an adapter imports it by name. To name an adapter's module here would freeze its framework too.
LEFT_OUT = ("jax", "torch")


def compiled_modules() -> list[str]:
    """Return the compiled modules. The kernels among them are chosen by the processor that the program runs on."""
    package = Path(fastdrop.__file__).parent
    paths = [path.relative_to(package.parent) for kind in ("so", "pyd") for path in package.rglob(f"*.{kind}")]
    return sorted({
        ".".join([*path.parent.parts, path.name.partition(".")[0]])
        for path in paths
        if not set(LEFT_OUT).intersection(path.parts)
    })  # fmt: skip


hiddenimports = compiled_modules()
