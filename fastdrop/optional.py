"""What an optional part of the package needs, and what to do where that is not installed."""

from __future__ import annotations

from importlib import import_module


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '.[{extra}]' in the checkout"


def needs(what: str, package: str, extra: str) -> str:
    """Return the sentence for a package that `what` needs and that is missing."""
    return f"{what} needs {package}, which is not installed: run {install(extra)}"


def require(framework: str) -> None:
    """Import the framework of an adapter, whose name its extra has too, or say how to install it."""
    try:
        import_module(framework)
    except ModuleNotFoundError as error:
        missing = (error.name or framework).partition(".")[0]
        raise ModuleNotFoundError(needs(f"fastdrop.{framework}", missing, framework), name=missing) from error
