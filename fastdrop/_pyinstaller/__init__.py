"""Tells PyInstaller where the hook is. Only PyInstaller imports this, through the entry point of that name."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    return [str(Path(__file__).parent)]
