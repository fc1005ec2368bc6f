"""One token of a convolution over a cache: the kernel against the plain function, on the device."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ssmid.kernels.cached_convolution import cached_step  # noqa: E402
from ssmid.nn.cached_convolution import plain_cached_step  # noqa: E402

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@on_gpu
@pytest.mark.parametrize("wide", ["float32", "float64"])
@pytest.mark.parametrize("kept", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(("batch", "channels", "slots"), [((5,), 3, 700), ((1,), 2, 37), ((2, 3), 2, 40), ((9,), 2, 5000), ((), 4, 1)])
def test_it_is_the_plain_function(batch, channels, slots, kept, wide):
    """At every place, also full, of all sequences alike or of each; in a view of slots too."""
    generator = torch.Generator("cuda").manual_seed(slots)
    history = torch.randn(*batch, channels, 2 * slots, generator=generator, device="cuda").to(getattr(torch, kept))
    taps = torch.randn(channels, slots, generator=generator, device="cuda").to(getattr(torch, wide))
    u = torch.randn(*batch, channels, generator=generator, device="cuda").to(history.dtype)
    own = torch.randint(0, slots + 2, batch, generator=generator, device="cuda")
    for position in (own, torch.full((1,), slots // 2, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")):
        found, expected = history.clone(), history.clone()
        full = position.expand(batch) >= slots if position.numel() == 1 and batch else position.reshape(batch) >= slots
        y = cached_step(found[..., :slots], taps, position, u)
        z = plain_cached_step(expected[..., :slots], taps, position, u)
        assert torch.equal(y.isnan().any(-1), full)
        assert torch.equal(y.isnan(), z.isnan())
        error = (y - z).nan_to_num().norm() / z.nan_to_num().norm().clamp_min(1e-30)
        assert float(error) < (1e-13 if wide == "float64" else 1e-5)
        kept_places = ~full[..., None, None].expand_as(history)
        assert torch.equal(found[kept_places], expected[kept_places])


@on_gpu
def test_a_batch_of_no_sequences():
    none = torch.zeros(0, 3, 8, device="cuda")
    position = torch.zeros(0, dtype=torch.int64, device="cuda")
    assert cached_step(none, torch.ones(3, 8, device="cuda"), position, none[..., 0]).shape == (0, 3)
