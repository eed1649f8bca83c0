"""The modules of dropout of `torch.nn`, on the kernels."""

from __future__ import annotations

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


class Dropout(nn.Dropout):
    """Does as `torch.nn.Dropout`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace)


class ReLUDropout(nn.Dropout):
    """Applies ReLU and then dropout in one pass, and ReLU alone at prediction."""

    def forward(self, input: Tensor) -> Tensor:
        return relu_dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(nn.AlphaDropout):
    """Does as `torch.nn.AlphaDropout`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(nn.FeatureAlphaDropout):
    """Does as `torch.nn.FeatureAlphaDropout`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return feature_alpha_dropout(input, self.p, self.training, self.inplace)


class Dropout1d(nn.Dropout1d):
    """Does as `torch.nn.Dropout1d`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(nn.Dropout2d):
    """Does as `torch.nn.Dropout2d`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(nn.Dropout3d):
    """Does as `torch.nn.Dropout3d`, on the kernels."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout3d(input, self.p, self.training, self.inplace)


class FusedReLU(nn.ReLU):
    """Stands for a ReLU that the dropout after it computes."""

    def forward(self, input: Tensor) -> Tensor:
        return input
