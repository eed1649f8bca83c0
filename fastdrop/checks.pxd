# The checks that the compiled calls reach without the cost of a Python call, which shows on small arrays.

cpdef keep_probability(value)
cpdef dropout_mode(value)
