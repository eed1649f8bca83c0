"""The benchmarks: README.md explains how they measure."""
