"""What a frozen program needs of fastdrop.keras, which imports the module of Keras's backend by a computed name."""

from importlib.util import find_spec

BACKENDS = ("jax", "tensorflow", "torch")  # a module of fastdrop.keras has the name of its framework

hiddenimports = [f"fastdrop.keras.{name}" for name in BACKENDS if find_spec(name)]
