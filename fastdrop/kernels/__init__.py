"""The kernels, compiled once for each instruction set, and the module that dispatches to one."""
