# The checks that the compiled calls reach without the cost of a Python call, which shows on small arrays.

cpdef keep_probability(value)
cpdef prediction_probability(value, mode)
cpdef dropout_mode(value)
cpdef integer(name, value)
cpdef seed(name, value, accepted=*)
cpdef position(value)
cpdef children(value)
cpdef prefix(value)
