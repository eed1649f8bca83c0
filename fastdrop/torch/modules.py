"""The modules of dropout of `torch.nn`, on the kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastdrop.torch.functional import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    relu_dropout,
)


class Leaf(str):
    """A class's `__module__`, for which its instances give "torch.nn" instead.

    A tracer of FX does not look into a module whose `__module__` begins with "torch.nn", and looks into all
    others. If it looked into a dropout, the traced graph would hold the dropout's `training` of that moment
    for ever. torch.compile does look: for its own modules it asks for "torch.nn." and more.
    """

    def __get__(self, instance: object, owner: type) -> str:
        return nn.__name__

    def __reduce__(self) -> Any:  # pickle writes the name of a class as a plain string
        return str, (str.__str__(self),)


class Dropout(nn.Dropout):
    """Does as `torch.nn.Dropout`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace)


class ReLUDropout(nn.Dropout):
    """Applies ReLU and then dropout in one pass, and ReLU alone at prediction; parameters as of `torch.nn.Dropout`."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return relu_dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(nn.AlphaDropout):
    """Does as `torch.nn.AlphaDropout`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training)  # PyTorch's own does not look at `inplace`


class FeatureAlphaDropout(nn.FeatureAlphaDropout):
    """Does as `torch.nn.FeatureAlphaDropout`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return feature_alpha_dropout(input, self.p, self.training)


class Dropout1d(nn.Dropout1d):
    """Does as `torch.nn.Dropout1d`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(nn.Dropout2d):
    """Does as `torch.nn.Dropout2d`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(nn.Dropout3d):
    """Does as `torch.nn.Dropout3d`, on the kernels; it has the same parameters."""

    __module__ = Leaf(__name__)

    def forward(self, input: Tensor) -> Tensor:
        return dropout3d(input, self.p, self.training, self.inplace)
