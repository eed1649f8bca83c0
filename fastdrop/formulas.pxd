# The formulas that the compiled calls reach without the cost of a Python call, which shows on small arrays.

cpdef training_scale(keep_prob, mode)
cpdef prediction_scale(keep_prob, mode)
