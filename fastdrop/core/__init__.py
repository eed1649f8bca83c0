"""From a call to a kernel: arguments are prepared, arrays measured, sweeps run on threads."""
