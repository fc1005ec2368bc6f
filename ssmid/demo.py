"""``ssmid demo``: the main job on data that the package brings along, without a network, in under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ssmid import datasets
from ssmid.distillation.pipeline import distill
from ssmid.io.files import about
from ssmid.report import Report, fit_into
from ssmid.report.progress import Stage

if TYPE_CHECKING:
    from torch import Tensor, nn

ROOM_ORDER = 96
ROOM_RATE, ROOM_LENGTH = 1000, 512
"""Hz and taps: the modes of a room below 500 Hz, where it resounds; above them an echo of noise begins, which no small model holds."""
FILTER_ORDER = 16
PROMPT, ANSWER = b"def read_text(path, encoding=None):\n    ", 80
LOSS = 0.01
"""Of its bits per byte, which the language model may lose as a recurrence."""


def run(folder: Path, stage: Stage | None = None) -> tuple[Report, bool]:
    """Fits a simulated room response and 64 filters of a trained language model into ``folder``, and makes recurrences of a small language
    model that then generates; the report, and whether all is well."""
    response = datasets.room(fs=ROOM_RATE, length=ROOM_LENGTH)
    room, room_good = fit_into(folder / "room", response, "room response below 500 Hz", order=ROOM_ORDER, stage=stage)
    bank, bank_good = fit_into(folder / "filters", datasets.hyena_filters(), "64 Hyena filters", order=FILTER_ORDER, stage=stage)
    model, model_good = distilled_model(folder / "multihyena.safetensors", stage)
    good = room_good and bank_good and model_good
    return Report("ssmid demo", {"folder": str(folder.resolve())}, parts=(room, bank, model)), good


def distilled_model(path: Path, stage: Stage | None = None) -> tuple[Report, bool]:
    """The bundled MultiHyena with recurrences in the place of its long convolutions, written to ``path``: what it loses, and says."""
    from ssmid.io.language_models import save_model
    from ssmid.nn import CachedConvolution, LanguageModel, convert

    said = stage or (lambda description, done=None, total=None: None)
    said("language model: its filters", 0, 3)
    trained = datasets.trained_model("multihyena")
    running = convert(trained, distill, order=FILTER_ORDER)
    assert isinstance(running, LanguageModel)
    with about(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_model(running, path)
    said("language model: bits per byte", 1, 3)
    before, after = (bits_per_byte(model) for model in (trained, running))
    said("language model: text", 2, 3)
    exact = convert(trained, CachedConvolution, max_length=len(PROMPT) + ANSWER)
    texts = [bytes(model.generate(list(PROMPT), ANSWER, temperature=0).tolist()) for model in (exact, running)]  # pyright: ignore[reportCallIssue]
    equal = next((i for i, (a, b) in enumerate(zip(*texts, strict=True)) if a != b), ANSWER)
    facts = {
        "bits per byte, convolutions of 512 taps": before,
        f"bits per byte, recurrences of order {FILTER_ORDER}": after,
        "greedy text equal for": f"{equal} of {ANSWER} bytes",
        "written": [str(path)],
    }
    text = (PROMPT + texts[1]).decode(errors="replace")
    return Report("a language model of Python source, distilled", facts, words=[f"It goes on:\n{text}"]), after <= (1 + LOSS) * before


def bits_per_byte(model: nn.Module) -> float:
    """On the bundled text, in windows of 512."""
    import numpy as np
    import torch

    text = np.frombuffer(datasets.sample_text(), np.uint8)
    windows: Tensor = torch.from_numpy(text[: len(text) // 512 * 512].astype(np.int64)).view(-1, 512)
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(model(windows)[:, :-1].flatten(0, 1), windows[:, 1:].flatten())
    return float(losses) / float(np.log(2))
