"""An exported graph has standard operators only and says nothing of the machine."""

import pytest
import torch
from torch import nn

from geoseg.errors import ModelFileError
from geoseg.export.graph import check_standard, to_onnx
from geoseg.ops import ss2d
from geoseg.ops.backends import choose_backend, standing_in

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Unwritable(nn.Module):
    def forward(self, x):
        return x + torch.linalg.eigvals(x[..., :4, :4]).real.sum()


def test_what_has_no_form_is_named():
    with pytest.raises(ModelFileError, match=r"written as ONNX: .*aten.linalg_eig.* Use the .saf"):
        to_onnx(Unwritable(), (1, 8, 8), opset=18, names=("image", "y"))


def test_operators_of_others_are_refused():
    node = onnx.helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "g", [], [])
    with pytest.raises(ModelFileError, match="the network needs com.microsoft::FusedConv"):
        check_standard(onnx.helper.make_model(graph))


def test_a_stand_in_is_asked_first_and_only_within():
    class Zeros:
        def ss2d_scan(self, x, *parameters):
            return torch.zeros_like(x)

    x = torch.ones(1, 2, 3, 4)
    arguments = [torch.ones(s) for s in ((4 * 3, 4), (4, 4, 1), (4, 4), (16, 1), (16,))]
    with standing_in(Zeros()):
        assert ss2d(x, *arguments).abs().max() == 0
        assert ss2d(x, *arguments, backend="reference").abs().max() > 0
    assert ss2d(x, *arguments).abs().max() > 0
    assert choose_backend("ss2d", "cpu", None) != "stand-in"
