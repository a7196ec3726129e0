"""Sounds as networks hear them: espeak-ng's speech in noise, notes of instruments, and spectrograms of both."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.foreign.sentences import sentences
from benchmarks.foreign.wheels import Unavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["log_mel", "notes", "speech"]

VOICES = ("en-gb", "en-us", "en-us+f2", "en-gb+m3", "de", "it", "es+f4", "fr")


def speech(rng: np.random.Generator, count: int, rate: int) -> NDArray[np.float32]:
    """Sentences with pauses between them, each of another voice and loudness, in noise; (count,) in -1..1.

    Raises:
        Unavailable: espeak-ng is not installed.
    """
    pieces: list[NDArray[Any]] = []
    while sum(map(len, pieces)) < count:
        spoken = _resampled(*_spoken(rng), rate)
        pieces += [spoken * rng.uniform(0.15, 1), np.zeros(int(rate * rng.uniform(0.1, 1.2)))]
    sound = np.concatenate(pieces)[:count]
    return (sound + rng.normal(0, 10 ** rng.uniform(-3.5, -1.5), count)).astype(np.float32)


def notes(rng: np.random.Generator, count: int, rate: int) -> NDArray[np.float32]:
    """Plucked notes of a dozen harmonics, alone and in chords; (count,) in -1..1."""
    seconds = np.arange(count) / rate
    sound = rng.normal(0, 10 ** rng.uniform(-4, -2.5), count)
    for _ in range(rng.integers(3, 15)):
        pitch = 440 * 2 ** (rng.integers(-28, 16) / 12)
        since = seconds - rng.uniform(0, 0.9) * seconds[-1]
        harmonics = np.arange(1, 1 + min(12, int(rate / 2 / pitch)))
        strengths = harmonics ** -rng.uniform(1, 2)
        tone = sum(s * np.sin(2 * np.pi * pitch * h * since) for s, h in zip(strengths, harmonics, strict=True))
        sound += rng.uniform(0.02, 0.1) * tone * np.where(since > 0, np.exp(-since / rng.uniform(0.1, 1)), 0)
    return sound.astype(np.float32)


def log_mel(sound: NDArray[Any], rate: int, bands: int, frames: int) -> NDArray[np.float32]:
    """Power in mel bands, in decibels below the loudest, so that 80 dB are -1..1; (frames, bands)."""
    hop, window = rate // 100, 2 * (rate // 100) + 1
    starts = hop * np.arange(frames)[:, None]
    power = np.abs(np.fft.rfft(sound[starts + np.arange(window)] * np.hanning(window))) ** 2
    decibels = 10 * np.log10(np.maximum(power @ _mel_bands(rate, bands, window), 1e-10))
    loudness: NDArray[np.float32] = (np.maximum(decibels - decibels.max(), -80) / 40 + 1).astype(np.float32)
    return loudness


def _mel_bands(rate: int, bands: int, window: int) -> NDArray[np.float64]:
    """Triangles that are equally wide in mel; (frequencies, bands)."""
    edges = 700 * (np.logspace(0, np.log10(1 + rate / 1400), bands + 2) - 1)
    at = np.linspace(0, rate / 2, window // 2 + 1)[:, None]
    rising = (at - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - at) / np.diff(edges)[1:]
    return np.clip(np.minimum(rising, falling), 0, None)


def _spoken(rng: np.random.Generator) -> tuple[NDArray[Any], int]:
    if not shutil.which("espeak-ng"):
        raise Unavailable("speech is spoken by espeak-ng: install it (Debian: apt install espeak-ng)")
    manner = ["-v", str(rng.choice(VOICES)), "-s", str(rng.integers(125, 205)), "-p", str(rng.integers(15, 85))]
    command = ["espeak-ng", *manner, "--stdout", str(rng.choice(sentences()))[:120]]
    done = subprocess.run(command, capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as file:
        # to a pipe espeak-ng writes no true length
        return np.frombuffer(file.readframes(1 << 24), np.int16) / 32768, file.getframerate()


def _resampled(sound: NDArray[Any], rate: int, wanted: int) -> NDArray[Any]:
    at = np.arange(int(len(sound) * wanted / rate)) * (rate / wanted)
    resampled: NDArray[Any] = np.interp(at, np.arange(len(sound)), sound)
    return resampled
