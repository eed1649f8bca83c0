"""With this pytest plugin, Thinc's own tests find our Dropout and our Ops where they look for theirs."""

import thinc.api
import thinc.layers

import fastdrop.thinc

thinc.api.Dropout = thinc.layers.Dropout = fastdrop.thinc.Dropout
thinc.api.registry.layers("Dropout.v1")(fastdrop.thinc.Dropout)
thinc.api.set_current_ops(fastdrop.thinc.FastdropOps())
