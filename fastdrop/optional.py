"""What an optional part of the package needs, and what to do where that is not installed."""

from __future__ import annotations

from importlib import import_module


def needs(what: str, package: str, extra: str) -> str:
    """Return the sentence for a package that `what` needs and that is missing."""
    return f"{what} needs {package}, which is not installed: run pip install '.[{extra}]' in the checkout"


def require(extra: str, *packages: str) -> None:
    """Import the packages of an adapter, which has the name of its extra, or say how to install them."""
    for package in packages or (extra,):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            missing = (error.name or package).partition(".")[0]
            raise ModuleNotFoundError(needs(f"fastdrop.{extra}", missing, extra), name=missing) from error
