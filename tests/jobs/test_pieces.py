"""Where memory runs out, half as many filters at once."""

from __future__ import annotations

import warnings

import pytest

from ssmid.jobs.pieces import Pieces, SmallerPiecesWarning, is_out_of_memory


def fits(limit: int, tried: list[int], error: Exception):
    def work(size: int) -> int:
        tried.append(size)
        if size > limit:
            raise error
        return size

    return work


def test_it_halves_until_it_fits_says_so_and_stays_there():
    tried: list[int] = []
    pieces = Pieces(64)
    with pytest.warns(SmallerPiecesWarning, match="out of memory with .* filters at once: going on with") as said:
        assert pieces.run(fits(20, tried, MemoryError("no")), 64) == 16
    assert tried == [64, 32, 16]
    assert len(said) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pieces.run(fits(20, tried, MemoryError("no")), 64) == 16
    assert tried[3:] == [16]


def test_groups_that_share_poles_stay_together():
    tried: list[int] = []
    with pytest.warns(SmallerPiecesWarning):
        assert Pieces(60).run(fits(25, tried, MemoryError()), 60, least=12) == 24
    assert tried == [60, 24]


@pytest.mark.parametrize(("count", "least"), [(8, 1), (8, 8)])
def test_what_does_not_fit_at_all_is_an_error_that_says_what_came(count, least):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallerPiecesWarning)
        with pytest.raises(MemoryError, match=rf"{least} filters at once do not fit \(no room\)"):
            Pieces(count).run(fits(0, [], MemoryError("no room")), count, least=least)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="singular"):
        Pieces(8).run(fits(0, [], RuntimeError("singular")), 8)


def test_the_words_of_gpus_are_known():
    torch = pytest.importorskip("torch")
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("cuFFT error: CUFFT_INVALID_SIZE"))
    assert not is_out_of_memory(ValueError("out of memory"))
