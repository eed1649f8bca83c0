"""The options of the suite, and what its JSON says about the machine."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import sizes
from fastdrop.commands.bench import timing

LIBRARIES = ("torch", "jax", "numba", "thinc", "pytest-benchmark")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastdrop")
    group.addoption("--sizes", type=sizes.parse_all, default=sizes.USUAL, metavar="64,16Ki,...",
                    help="numbers of elements (default: 64 to 16 Mi in seven steps)")  # fmt: skip
    group.addoption("--full", action="store_const", dest="sizes", const=sizes.ALL,
                    help="every size from 64 to 64 Mi")  # fmt: skip
    group.addoption("--comparison-seconds", type=float, default=2.0, metavar="S",
                    help="how long the competitors alternate at each size (default: 2)")  # fmt: skip
    group.addoption("--competitors", type=lambda text: tuple(text.split(",")), default=("",),
                    metavar="fastdrop,copy,...", help="beginnings of their names (default: all)")  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "size" in metafunc.fixturenames and not metafunc.definition.get_closest_marker("own_sizes"):
        metafunc.parametrize("size", metafunc.config.getoption("sizes"), ids=sizes.label)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "own_sizes: ignores --sizes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:  # warnings of other libraries do not matter here
        item.add_marker(pytest.mark.filterwarnings("ignore"))
    wanted = config.getoption("competitors")
    left_out = [item for item in items if name_of(item) and not name_of(item).startswith(wanted)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def name_of(item: pytest.Item) -> str:
    """Return the name of the competitor that an item is about."""
    callspec = getattr(item, "callspec", None)
    return callspec.params["competitor"].name if callspec and "competitor" in callspec.params else ""


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["fastdrop"] = timing.machine(*LIBRARIES)


def pytest_report_header() -> str:
    return "machine: " + ", ".join(f"{name} {value}" for name, value in timing.machine(*LIBRARIES).items())
