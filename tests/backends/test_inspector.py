from __future__ import annotations

import json
from pathlib import Path

from pytest_trt.backends.achieved_precision import achieved
from pytest_trt.backends.backend import Layer
from pytest_trt.backends.tensorrt._inspector import layers_of

SAMPLE = Path(__file__).with_name("engine-layers-8.6.json").read_text()


def told(layers: list[object]) -> str:
    return json.dumps({"Layers": layers})


def test_a_real_engine_of_8_6_tells_21_convolutions_in_int8() -> None:
    layers = layers_of(SAMPLE)

    found = achieved(layers, "int8")

    assert len(layers) == 35
    assert (found.compute, found.honoured, found.by_precision) == (21, 21, {"int8": 21})


def test_a_layer_of_8_6_tells_dtypes_weights_tactic_and_onnx_nodes() -> None:
    first = next(layer for layer in layers_of(SAMPLE) if layer.computes)

    assert first.type == "CaskConvolution"
    assert first.inputs == ("int8",)
    assert first.weights == "int8"
    assert first.tactic.startswith("sm80_xmma_fprop_avdt_dense_chw_int8int8")
    assert first.onnx_nodes == ("/conv1/Conv", "/relu/Relu")


def test_a_reformat_does_not_compute() -> None:
    assert not next(layer for layer in layers_of(SAMPLE) if layer.type == "Reformat").computes


def test_the_words_of_release_10_are_understood() -> None:
    conv = {
        "Name": "c",
        "LayerType": "CaskGemmConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Half"}],
        "Outputs": [{"Name": "y", "Format/Datatype": "Float"}],
        "Metadata": "[ONNX Layer: c1]",
    }

    (layer,) = layers_of(told([conv]))

    assert (layer.inputs, layer.outputs, layer.precision, layer.computes) == (("fp16",), ("fp32",), "fp16", True)


def test_the_renamed_keys_of_release_11_are_understood() -> None:
    gemm = {"Name": "g", "LayerType": "gemm", "Inputs": [{"Name": "x", "Format": "Row major", "Datatype": "BFloat16"}]}

    (layer,) = layers_of(told([gemm]))

    assert (layer.precision, layer.computes) == ("bf16", True)


def test_fp8_is_understood_by_each_of_its_names() -> None:
    names = ["FP8", "FP8 E4M3", "Float8E4M3FN"]

    layers = layers_of(told([{"LayerType": "gemm", "Inputs": [{"Datatype": name}]} for name in names]))

    assert [layer.precision for layer in layers] == ["fp8", "fp8", "fp8"]


def test_a_kernel_whose_name_says_tf32_runs_in_tf32() -> None:
    conv = {
        "LayerType": "CaskConvolution",
        "Inputs": [{"Format/Datatype": "Row major linear FP32"}],
        "TacticName": "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw",
    }

    assert layers_of(told([conv]))[0].precision == "tf32"


def test_a_fused_layer_that_tells_no_precision_computes_in_an_unknown_one() -> None:
    fused = {
        "Name": "{ForeignNode[a...b]}",
        "LayerType": "Myelin",
        "Inputs": [{"Format/Datatype": "Row major linear FP32"}],
        "Metadata": "[ONNX Layer: block/product]",
    }

    (layer,) = layers_of(told([fused]), frozenset({"block/product"}))

    assert (layer.computes, layer.precision) == (True, "unknown")


def test_a_dtype_that_depends_on_shapes_is_unknown() -> None:
    conv = {"LayerType": "conv", "Inputs": [{"Format/Datatype": "N/A due to dynamic shapes"}]}

    assert layers_of(told([conv]))[0].precision == "unknown"


def test_an_engine_without_details_tells_no_layers() -> None:
    assert layers_of(told(["conv1", "fc"])) == ()


def test_text_that_is_no_json_tells_no_layers() -> None:
    assert layers_of("") == ()
    assert layers_of("[1]") == ()


def test_layers_that_do_not_compute_do_not_count() -> None:
    layers = [
        Layer("a", "conv", precision="int8", computes=True),
        Layer("b", "conv", precision="fp16", computes=True),
        Layer("c", "relu", precision="fp16"),
    ]

    found = achieved(layers, "int8")

    assert str(found) == "1 of 2 compute layers in int8 (1 in fp16, 1 in int8)"


def test_an_rnn_computes() -> None:
    (layer,) = layers_of(told([{"LayerType": "RNN", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]}]))

    assert (layer.computes, layer.precision) == (True, "fp32")
