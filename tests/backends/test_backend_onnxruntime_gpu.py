"""onnxruntime-gpu's providers: by a stand-in for its sessions, and what the CPU's onnxruntime can show itself."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import networks
import onnx
import pytest

from pytest_trt import Case, check
from pytest_trt.backends.backend import Backend, Engine, choose
from pytest_trt.backends.build_options import BuildOptions
from pytest_trt.backends.onnxruntime_gpu import OnnxruntimeGpuBackend
from pytest_trt.backends.recipe import Recipe, Span, sampled
from pytest_trt.errors import BackendError, CaseError, LoweringError, ModelError
from pytest_trt.golden.create import update
from pytest_trt.lowering.lowering import held_precision
from pytest_trt.model.model import Model, checked
from pytest_trt.precision import Precision

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from pytest_trt.findings.verdict import Verdict

onnxruntime = pytest.importorskip("onnxruntime")

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

ON_CPU = (
    "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP,"
    " but fallback to CPU EP has been explicitly disabled by the user."
)


@dataclass
class FakeGpu:
    """Sessions that say they are on the GPU and compute on the CPU; other sessions are onnxruntime's own.

    Attributes:
        loads: whether the provider's libraries are found.
        fails: what opening a whole graph raises.
        opened: for each session, the graph, its provider's options, the session config, and whether it may fall back.
    """

    loads: bool = True
    fails: str = ""
    opened: list[dict[str, Any]] = field(default_factory=list)

    def session(
        self, data: bytes, settings: Any, *, providers: list[Any], enable_fallback: int, disabled_optimizers: list[str]
    ) -> Any:
        (name, options) = providers[0]
        if name == CPU:
            return self.real(data, settings, providers=providers, disabled_optimizers=disabled_optimizers)
        whole = _config(settings, "session.disable_cpu_ep_fallback") == "1"
        self.opened.append({"proto": onnx.load_from_string(data), "options": options, "whole": whole})
        assert enable_fallback == 0
        if whole and (self.fails or not self.loads):
            raise RuntimeError(self.fails or ON_CPU)
        return FakeSession(self.real(data, providers=[CPU]), [name, CPU] if self.loads else [CPU])

    def __post_init__(self) -> None:
        self.real = onnxruntime.InferenceSession


@dataclass
class FakeSession:
    real: Any
    providers: list[str]

    def get_providers(self) -> list[str]:
        return self.providers

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self.real.run(names, feeds)


def _config(settings: Any, key: str) -> str:
    try:
        return str(settings.get_session_config_entry(key))
    except RuntimeError:
        return ""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()
    monkeypatch.setattr(onnxruntime, "InferenceSession", fake.session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return fake


def recipe(precision: Precision = Precision.FP16, batch: int | str = 8, **options: Any) -> Recipe:
    model = checked(networks.convolutional(batch), "net.onnx")
    calibration = sampled(model, lambda _: [{"x": networks.images()}], "images")
    return Recipe(model, precision, calibration, options=BuildOptions(**options))


def built(backend: str, recipe: Recipe) -> Any:
    return choose(backend).build(recipe)


def told(gpu: FakeGpu, backend: str, recipe: Recipe) -> dict[str, Any]:
    built(backend, recipe)
    return dict(gpu.opened[-1]["options"])


@pytest.fixture
def case(tmp_path: Path) -> Case:
    networks.save(networks.convolutional(), tmp_path / "net.onnx")
    made = Case(onnx="net.onnx", calibration="golden", base=tmp_path)
    update(made, tmp_path / "golden")
    return made


def judged(case: Case, precision: str, backend: str, **keys: Any) -> Verdict:
    return check(case, precision, backend=backend, golden_dir=case.base / "golden", **keys)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has the provider")
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_the_cpus_onnxruntime_is_told_to_make_room(backend: str) -> None:
    with pytest.raises(BackendError, match=r'has only .*CPUExecutionProvider.*pip install "pytest-trt\[gpu\]"'):
        choose(backend)


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has the provider")
@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntimes_own_silent_fallback_is_found(backend: str) -> None:
    with pytest.raises(BackendError, match="could not load it: it took CPUExecutionProvider instead"):
        OnnxruntimeGpuBackend(backend, "1.0").build(recipe())


@pytest.mark.skipif("AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs a provider")
def test_onnxruntimes_own_nodes_on_the_cpu_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends import onnxruntime_gpu

    # a provider that loads everywhere and takes no node of ours
    monkeypatch.setitem(onnxruntime_gpu._PROVIDERS, "onnxruntime-cuda", "AzureExecutionProvider")
    monkeypatch.setitem(onnxruntime_gpu._LIBRARIES, "AzureExecutionProvider", "none")

    with pytest.raises(BackendError, match="AzureExecutionProvider does not take all of the graph"):
        built("onnxruntime-cuda", recipe())


def test_a_provider_that_does_not_load_is_told_by_what_came_instead(gpu: FakeGpu) -> None:
    gpu.loads = False

    with pytest.raises(BackendError, match="it took CPUExecutionProvider instead") as caught:
        built("onnxruntime-tensorrt", recipe())

    assert "TensorRT, CUDA and cuDNN" in str(caught.value)
    assert "LD_LIBRARY_PATH" in str(caught.value)


def test_a_session_that_opens_without_its_provider_is_no_pass(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "get_providers", lambda _: [CPU])

    with pytest.raises(BackendError, match="has CUDAExecutionProvider and could not load it"):
        built("onnxruntime-cuda", recipe())


def test_nodes_left_to_the_cpu_are_refused_in_words(gpu: FakeGpu) -> None:
    gpu.fails = ON_CPU

    with pytest.raises(BackendError, match=r"net\.onnx: CUDAExecutionProvider does not take all of the graph"):
        built("onnxruntime-cuda", recipe())

    assert [opened["whole"] for opened in gpu.opened] == [True, False]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('Unknown provider option: "use_tf32".', BackendError, "does not take these options of CUDAExecutionProvider"),
        ("CUDA failure 100: no CUDA-capable device is detected.", BackendError, "can't use GPU 0: CUDA failure 100"),
        ("Invalid device ID: 0, must be between 0 and 0.", BackendError, "can't use GPU 0: Invalid device ID"),
        ("Load model failed: no opset", ModelError, "onnxruntime refuses the graph: Load model failed"),
    ],
)
def test_what_onnxruntime_says_while_opening_is_told(gpu: FakeGpu, text: str, error: type, message: str) -> None:
    gpu.fails = text

    with pytest.raises(error, match=message):
        built("onnxruntime-cuda", recipe())


def test_the_backends_and_their_engines_are_what_the_protocols_say(gpu: FakeGpu) -> None:
    cuda, tensorrt = choose("onnxruntime-cuda"), choose("onnxruntime-tensorrt")
    engine = cuda.build(recipe())

    assert isinstance(cuda, Backend)
    assert isinstance(engine, Engine)
    assert (cuda.simulated, cuda.builds_engines, tensorrt.simulated, tensorrt.builds_engines) == (
        False,
        False,
        False,
        True,
    )
    assert (engine.backend, engine.simulated, engine.layers()) == ("onnxruntime-cuda", False, ())
    assert engine.facts == {
        "onnxruntime": onnxruntime.__version__,
        "provider": CUDA,
        "provider_options": {"device_id": 0, "use_tf32": 0},
        "lowering": "own",
    }
    assert cuda.version == f"onnxruntime {onnxruntime.__version__}, {CUDA}"


@pytest.mark.parametrize(
    ("precision", "tf32", "held"),
    [
        (Precision.FP32, 0, "fp32"),
        (Precision.TF32, 1, "fp32"),
        (Precision.FP16, 0, "fp16"),
        (Precision.INT8, 0, "int8"),
    ],
)
def test_cuda_gets_the_graph_in_its_precision_and_tf32_for_tf32_alone(
    gpu: FakeGpu, precision: Precision, tf32: int, held: str
) -> None:
    options = told(gpu, "onnxruntime-cuda", recipe(precision, device=2))

    assert options == {"device_id": 2, "use_tf32": tf32}
    assert held_precision(gpu.opened[-1]["proto"]) == held


def test_fp16_is_the_typed_graph_and_no_sandwich(gpu: FakeGpu) -> None:
    built("onnxruntime-cuda", recipe(Precision.FP16))

    weights = {tensor.data_type for tensor in gpu.opened[-1]["proto"].graph.initializer}
    assert weights == {onnx.TensorProto.FLOAT16}


def test_bf16_that_is_only_rounded_fp32_is_refused(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends import onnxruntime_gpu
    from pytest_trt.lowering.casts import bf16_sandwich

    monkeypatch.setattr(onnxruntime_gpu, "lower", lambda model, *_, **__: Model(bf16_sandwich(model.proto), "net.onnx"))

    with pytest.raises(LoweringError, match="only as fp32 rounded to bf16, which would be a simulation"):
        built("onnxruntime-cuda", recipe(Precision.BF16))


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_bf16_itself_is_handed_over(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    from pytest_trt.backends import onnxruntime_gpu

    monkeypatch.setattr(onnxruntime_gpu, "lower", lambda *_, **__: in_bf16())
    # the CPU's onnxruntime has no kernel for it, so that nothing but the hand-over is looked at
    monkeypatch.setattr(gpu, "real", lambda *_, **__: None)

    options = told(gpu, backend, recipe(Precision.BF16))

    assert options.get("trt_bf16_enable", "cuda") in (True, "cuda")
    assert held_precision(gpu.opened[-1]["proto"]) == "bf16"


def in_bf16() -> Model:
    bf16 = onnx.TensorProto.BFLOAT16
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["low"], to=bf16),
        onnx.helper.make_node("Relu", ["low"], ["up"]),
        onnx.helper.make_node("Cast", ["up"], ["logits"], to=onnx.TensorProto.FLOAT),
    ]
    shape = (onnx.TensorProto.FLOAT, [8, 2, 6, 6])
    return checked(networks.model(nodes, {"x": shape}, {"logits": shape}), "net.onnx")


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_tf32_is_refused_where_the_environment_forbids_it(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")

    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 forbids it"):
        built(backend, recipe(Precision.TF32))


def test_fp32_by_tensorrt_needs_tf32_forbidden_by_the_environment(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match="NVIDIA_TF32_OVERRIDE=0 in the environment before pytest starts"):
        built("onnxruntime-tensorrt", recipe(Precision.FP32))

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")

    assert built("onnxruntime-tensorrt", recipe(Precision.FP32)).facts["NVIDIA_TF32_OVERRIDE"] == "0"


@pytest.mark.parametrize(
    ("precision", "switch"),
    [
        (Precision.TF32, {}),
        (Precision.FP16, {"trt_fp16_enable": True}),
        (Precision.INT8, {"trt_int8_enable": True}),
    ],
)
def test_tensorrt_is_told_the_precision(gpu: FakeGpu, precision: Precision, switch: dict[str, bool]) -> None:
    assert told(gpu, "onnxruntime-tensorrt", recipe(precision)) == {"device_id": 0, **switch}


def test_weak_typing_leaves_the_graph_fp32(gpu: FakeGpu) -> None:
    options = told(gpu, "onnxruntime-tensorrt", recipe(typing="weak"))

    assert options["trt_fp16_enable"] is True
    assert held_precision(gpu.opened[-1]["proto"]) == "fp32"


def test_a_file_is_built_in_the_precision_that_it_holds(gpu: FakeGpu) -> None:
    from pytest_trt.lowering._strong_typing import fp16_typed

    half = Model(fp16_typed(networks.convolutional(8)), "half.onnx")

    assert told(gpu, "onnxruntime-tensorrt", Recipe(half, Precision.MODEL))["trt_fp16_enable"] is True


def test_a_held_precision_without_a_word_is_refused(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_trt.backends import achieved_precision as honoured

    monkeypatch.setattr(honoured, "held_precision", lambda _: "fp8")

    with pytest.raises(BackendError, match=r"has no word for fp8: .* fp16, bf16, int8"):
        built("onnxruntime-tensorrt", recipe(Precision.MODEL))


def test_build_options_go_to_tensorrt_in_its_words(gpu: FakeGpu) -> None:
    asked = recipe(
        device=1, workspace=2**30, optimization_level=5, tactic_sources=("CUDNN",), sparsity=True,
        plugins=("a.so", "b.so"), hardware_compatibility="ampere_plus", dla_core=0, gpu_fallback=True, honoured=0.0,
    )  # fmt: skip

    engine = built("onnxruntime-tensorrt", asked)

    assert engine.facts["provider_options"] == {
        "device_id": 1,
        "trt_fp16_enable": True,
        "trt_max_workspace_size": 2**30,
        "trt_builder_optimization_level": 5,
        "trt_tactic_sources": "-CUBLAS,-CUBLAS_LT,+CUDNN,-EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS",
        "trt_sparsity_enable": True,
        "trt_extra_plugin_lib_paths": "a.so;b.so",
        "trt_engine_hw_compatible": True,
        "trt_dla_enable": True,
        "trt_dla_core": 0,
    }
    assert "no DLA core 0, and does not say so" in engine.warnings[0]


REFUSED: dict[str, Any] = {
    "typing": "strong",
    "calibrator": "entropy",
    "calibration_cache": "cache",
    "fallback": "fp16",
    "timing_cache": "timing.cache",
    "hardware_compatibility": "same_compute_capability",
    "version_compatible": True,
    "refit": True,
    "dla_core": 0,
    "gpu_fallback": True,
    "tactic_sources": ("CUBLASS",),
    "compute_capabilities": ("8.9",),
}


@pytest.mark.parametrize("option", REFUSED)
def test_a_build_option_without_a_word_is_refused_by_name(gpu: FakeGpu, option: str) -> None:
    with pytest.raises(BackendError, match=option):
        built("onnxruntime-tensorrt", recipe(**{option: REFUSED[option]}))

    assert gpu.opened == []


@pytest.mark.parametrize("option", [*REFUSED, "workspace", "optimization_level", "sparsity", "plugins"])
def test_cuda_builds_nothing_and_refuses_builder_options_by_name(gpu: FakeGpu, option: str) -> None:
    with pytest.raises(BackendError, match=f"'onnxruntime-cuda' has no word for the build option {option} = "):
        built("onnxruntime-cuda", recipe(**{option: REFUSED.get(option, 1)}))


def test_dla_at_fp32_and_weak_int8_are_refused(gpu: FakeGpu) -> None:
    with pytest.raises(BackendError, match="DLA runs fp16 and int8, and tf32 was asked"):
        built("onnxruntime-tensorrt", recipe(Precision.TF32, dla_core=0, gpu_fallback=True))
    with pytest.raises(BackendError, match="can't build int8 with typing = 'weak'"):
        built("onnxruntime-tensorrt", recipe(Precision.INT8, typing="weak"))


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_prebuilt_engine_is_refused(gpu: FakeGpu, backend: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"can't load the engine .*net\.plan"):
        built(backend, replace(recipe(), plan=tmp_path / "net.plan"))


def test_shapes_are_told_by_the_feeds_as_they_will_be_cut(gpu: FakeGpu) -> None:
    dynamic = replace(recipe(batch="N"), feeds=({"x": networks.images(5)},), batch=4)

    options = told(gpu, "onnxruntime-tensorrt", dynamic)

    assert options["trt_profile_min_shapes"] == "x:1x2x6x6"
    assert options["trt_profile_opt_shapes"] == "x:4x2x6x6"
    assert options["trt_profile_max_shapes"] == "x:4x2x6x6"


def test_profiles_of_the_users_own_follow_each_other(gpu: FakeGpu) -> None:
    first, second = ({"x": Span((low, 2, 6, 6), (low, 2, 6, 6), (high, 2, 6, 6))} for low, high in ((1, 4), (8, 16)))

    options = told(gpu, "onnxruntime-tensorrt", replace(recipe(batch="N"), profiles=(first, second)))

    assert options["trt_profile_min_shapes"] == "x:1x2x6x6,x:8x2x6x6"
    assert options["trt_profile_max_shapes"] == "x:4x2x6x6,x:16x2x6x6"


def test_a_profile_of_another_model_is_refused(gpu: FakeGpu) -> None:
    with pytest.raises(CaseError, match="'y' is no input of the model"):
        built("onnxruntime-tensorrt", replace(recipe(), profiles=({"y": Span((1,), (1,), (1,))},)))


def test_an_input_whose_name_can_not_be_told_is_refused(gpu: FakeGpu) -> None:
    proto = networks.convolutional("N")
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "x:0"
    named = Recipe(checked(proto, "net.onnx"), Precision.FP16, feeds=({"x:0": networks.images()},))

    with pytest.raises(BackendError, match="the input 'x:0', whose name has a comma or a colon"):
        built("onnxruntime-tensorrt", named)


def test_engines_are_kept_in_a_folder_of_their_own_weights_and_options(gpu: FakeGpu, tmp_path: Path) -> None:
    other = replace(recipe(), model=checked(networks.convolutional(8, seed=1), "net.onnx"))
    asked = [recipe(), recipe(), recipe(workspace=2**20), other]

    options = [told(gpu, "onnxruntime-tensorrt", replace(one, store=tmp_path)) for one in asked]

    folders = [one["trt_engine_cache_path"] for one in options]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3
    assert all(one["trt_engine_cache_enable"] and one["trt_timing_cache_enable"] for one in options)
    assert {one["trt_timing_cache_path"] for one in options} == {str(tmp_path / "onnxruntime")}
    found = next((tmp_path / "onnxruntime").iterdir())
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_a_store_that_can_not_be_written_is_told(gpu: FakeGpu, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").write_text("a file in the way")

    with pytest.raises(BackendError, match=r"the folder of engines .* can't be made"):
        built("onnxruntime-tensorrt", replace(recipe(), store=tmp_path))


def test_a_case_is_judged_on_the_gpu_and_not_called_simulated(gpu: FakeGpu, case: Case) -> None:
    verdict = judged(case, "fp16", "onnxruntime-cuda")

    assert (verdict.verdict, verdict.simulated, verdict.backend) == ("passed", False, "onnxruntime-cuda")
    assert verdict.provenance["engine"]["provider"] == CUDA


def test_a_required_engine_is_not_cuda(gpu: FakeGpu, case: Case) -> None:
    verdict = judged(case, "fp16", "onnxruntime-cuda", require_engine=True)

    assert (verdict.verdict, verdict.kind) == ("error", "BackendError")
    assert "an engine is required" in verdict.message
    assert "'onnxruntime-cuda' builds no TensorRT engine" in verdict.message


def test_an_engine_that_tells_no_layers_fails_until_that_is_accepted(gpu: FakeGpu, case: Case) -> None:
    refused = judged(case, "fp16", "onnxruntime-tensorrt", require_engine=True)
    accepted = judged(replace(case, build={"honoured": 0.0}), "fp16", "onnxruntime-tensorrt", require_engine=True)

    assert (refused.verdict, refused.kind) == ("error", "PrecisionNotHonoured")
    assert "onnxruntime hands out nothing of what it builds" in refused.message
    assert "--trt-build honoured=0" in refused.message
    assert "trtexec" not in refused.message
    assert accepted.verdict == "passed"


def test_the_header_names_the_package_that_brings_the_provider(pytester: pytest.Pytester, project: Path) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("onnxruntime-gpu")
    except PackageNotFoundError:
        found = "not installed"

    result = pytester.runpytest("--trt-backend=onnxruntime-tensorrt", "--collect-only")

    result.stdout.fnmatch_lines([f"trt: *; backend onnxruntime-tensorrt {found}; goldens in *"])


@pytest.mark.gpu
@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu and a GPU")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_cuda_itself_keeps_the_envelope(case: Case, precision: str) -> None:
    verdict = judged(case, precision, "onnxruntime-cuda")
    if "could not load it" in verdict.message:
        pytest.skip(verdict.message)  # onnxruntime-gpu names the provider where CUDA is missing, too

    assert (verdict.verdict, verdict.message) == ("passed", "")


@pytest.mark.gpu
@pytest.mark.skipif(TENSORRT not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu and TensorRT")
@pytest.mark.parametrize("precision", ["tf32", "fp16", "int8"])
def test_tensorrts_provider_itself_keeps_the_envelope(case: Case, precision: str) -> None:
    verdict = judged(replace(case, build={"honoured": 0.0}), precision, "onnxruntime-tensorrt")
    print(verdict.message)
    if "could not load it" in verdict.message:
        pytest.skip(verdict.message)  # onnxruntime-gpu names the provider where TensorRT is missing, too

    assert (verdict.verdict, verdict.message) == ("passed", "")
