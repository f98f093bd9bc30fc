"""An exported graph has standard operators only and says nothing of the machine."""

import numpy as np
import pytest
import torch
from torch import nn

from geoseg.errors import ModelFileError
from geoseg.export.graph import check_standard, to_onnx
from geoseg.ops import ss2d
from geoseg.ops.backends import choose_backend, standing_in
from tests.conftest import ROOT

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_operators_are_onnx_s_own(family, request):
    model = onnx.load(request.getfixturevalue(family).report.path)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert all(onnx.defs.has(node.op_type) for node in model.graph.node)
    assert (len(model.functions), model.ir_version) == (0, 8)
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_any_batch_runs(family, request):
    done = request.getfixturevalue(family)
    session = onnxruntime.InferenceSession(str(done.report.path))
    side = done.report.spec.tile.size_px
    assert session.get_inputs()[0].shape == ["batch", 3, side, side]
    assert session.get_outputs()[0].shape == ["batch", 4, side, side]
    images = np.random.default_rng(0).random((3, 3, side, side), np.float32)
    together = session.run(None, {"image": images})[0]
    alone = [session.run(None, {"image": image[None]})[0] for image in images]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize("family", ["segnext", "segman"])
def test_no_path_of_this_machine_is_in_a_file(family, request):
    done = request.getfixturevalue(family)
    written = done.report.path.read_bytes() + done.report.item.read_bytes()
    for told in (str(ROOT), "site-packages", str(done.model.parent), "stack_trace"):
        assert told.encode() not in written


def test_equal_constants_are_stored_once(segman):
    graph = onnx.load(segman.report.path).graph
    assert not any(node.op_type == "Constant" for node in graph.node)
    small = [t for t in graph.initializer if t.ByteSize() < 200 and t.dims]
    contents = [(t.data_type, tuple(t.dims), t.raw_data) for t in small if t.raw_data]
    repeated = len(contents) - len(set(contents))
    assert repeated < len(contents) / 2


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
