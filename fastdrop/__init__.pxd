# What `cimport fastdrop` gives.

from fastdrop.capi cimport *
