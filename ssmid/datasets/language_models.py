"""Small language models of bytes that were trained, their filters, and text to try them on.

``data/NAME.safetensors`` holds three models of four blocks 128 wide, trained on windows of 512 bytes of the source of Python's standard
library by ``ssmid experiment small-models``: weights in float16, filters in float32. ``data/small_models.json`` has for each the command,
the text and its hash, the configuration, bits per byte on held-out files, and what the rounding to float16 cost.

``data/sample_text.txt`` is source code of this package as it was when the models were trained. None of it is in what they were trained on.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np

from ssmid.systems import ImpulseResponse

if TYPE_CHECKING:
    from ssmid.nn.language_model import LanguageModel

NAMES = ("hyena", "multihyena", "hyena-rtf")


def trained_model(name: str = "hyena") -> LanguageModel:
    """A trained language model of bytes, in float32 on the CPU, ready to be distilled: tokens are bytes, 0 ends a file.

    name : "hyena", filters implicit, one a channel; "multihyena", 32 heads of four channels, one filter a head; "hyena-rtf", Hyena whose
    filters are rational functions of order 16, so that ``ssmid.nn.convert(model, "exact")`` loses nothing

    Each call reads the file anew. Raises ValueError for another name.

    >>> import ssmid
    >>> running = ssmid.nn.convert(trained_model("hyena-rtf"), "exact")
    >>> running.generate(list(b"def main("), 8, temperature=0).shape
    torch.Size([8])
    """
    from ssmid.io.language_models import load_model

    if name not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}, got {name!r}")
    with as_file(files("ssmid").joinpath(f"data/{name}.safetensors")) as path:
        return load_model(path).float()


def trained_filters(name: str = "hyena") -> ImpulseResponse:
    """All filters of :func:`trained_model`, block by block: taps ``(filters, 512)``, float32, as long as the windows of training.

    512 of "hyena" and of "hyena-rtf", 128 of "multihyena". Tap 0 holds what the model passes through.

    >>> trained_filters("multihyena")
    ImpulseResponse(length=512, batch=(128,), dt=1, float32)
    """
    import torch

    from ssmid.nn.filter import Filter

    model = trained_model(name)
    with torch.no_grad():
        taps = [filter(model.configuration["length"]).numpy() for filter in model.modules() if isinstance(filter, Filter)]
    return ImpulseResponse(np.concatenate(taps))


def sample_text() -> bytes:
    """Python source that the bundled models were not trained on, about 20,000 bytes of it, ASCII.

    >>> sample_text()[3:16]
    b'Files as such'
    """
    return files("ssmid").joinpath("data/sample_text.txt").read_bytes()
