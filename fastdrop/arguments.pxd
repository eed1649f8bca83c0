# What the compiled calls reach without the cost of a Python call: on small arrays it would show.

cpdef keep_probability(value)
cpdef dropout_mode(value)
cpdef training_scale(keep_prob, mode)
cpdef prediction_scale(keep_prob, mode)
