"""Filters that are recurrences come back as they were: the bars of recovery, through the door and with its defaults.

Where what comes after the last tap counts as zero, a filter is a recurrence of its order only if it has faded out by then: taps are as
many as that takes. A filter that has not is a recurrence over its taps alone, which ``beyond="free"`` asks for.
"""

from __future__ import annotations

import numpy as np
import pytest

import ssmid

BAR = 1e-10


def taps_of(poles, residues, length):
    """``(*batch, length)``: tap 0 of its own, then ``Re sum_i r_i p_i^(t-1)``, written out."""
    logs = np.log(poles)
    later = np.stack([np.real(np.sum(residues * np.exp(t * logs), axis=-1)) for t in range(length - 1)], axis=-1)
    return np.concatenate([np.full((*later.shape[:-1], 1), 0.5), later], axis=-1)


def pairs(upper, residues):
    return np.concatenate([upper, upper.conj()], axis=-1), np.concatenate([residues, residues.conj()], axis=-1) / 2


def checked(found, taps, poles, bar=BAR):
    """The error as it is certified and as it is written out again, and the poles."""
    assert np.max(found.error) <= bar
    p, r = found.system.poles, found.system.residues
    error = np.linalg.norm((taps_of(np.where(p == 0, 1e-300, p), r, taps.shape[-1]) - taps)[..., 1:], axis=-1)
    assert np.max(error / np.linalg.norm(taps[..., 1:], axis=-1)) <= bar
    assert np.array_equal(found.system.feedthrough, taps[..., 0])
    distance = np.abs(poles[..., :, None] - p[..., None, :]).min(axis=-1)
    return distance.max()


def test_four_layers_of_order_16():
    rng = np.random.default_rng(16)
    upper = rng.uniform(0.5, 0.95, (4, 3, 8)) * np.exp(1j * np.pi * (np.arange(8) + rng.uniform(0.2, 0.8, (4, 3, 8))) / 8)
    poles, residues = pairs(upper, rng.standard_normal((4, 3, 8)) + 1j * rng.standard_normal((4, 3, 8)))
    taps = taps_of(poles, residues, 1024)
    found = [ssmid.distill(layer, 16) for layer in taps]
    for layer, own, result in zip(taps, poles, found, strict=True):
        assert checked(result, layer, own) < 1e-8
        assert result.converged.all()
    chosen = ssmid.distill(taps, tol=1e-9)
    assert (np.asarray(chosen.order) == 16).all()


def test_modulus_9999():
    """Taps until it has fallen to 1e-11."""
    poles, residues = pairs(np.array([0.9999 * np.exp(0.3j), 0.9 * np.exp(1.2j)]), np.array([1.0 - 0.5j, 0.7 + 0.2j]))
    taps = taps_of(poles, residues, 250_000)
    assert checked(ssmid.distill(taps, 4), taps, poles) < 1e-9


def test_modulus_9999_within_2048_taps():
    """Which end in the midst of it."""
    poles, residues = pairs(np.array([0.9999 * np.exp(0.3j), 0.9 * np.exp(1.2j)]), np.array([1.0 - 0.5j, 0.7 + 0.2j]))
    taps = taps_of(poles, residues, 2048)
    assert checked(ssmid.distill(taps, 4, beyond="free"), taps, poles) < 1e-8


@pytest.mark.parametrize("gap", [1e-1, 1e-2])
def test_a_cluster_of_four(gap):
    """Two neighbours and their conjugates apart by ``gap``, and four poles around 0.8: a cluster is told by its response."""
    poles = np.concatenate([0.8 + gap * np.array([0.0, 1.0, 0.5 + 0.5j, 0.5 - 0.5j]), [0.6j, -0.6j]])
    residues = np.array([1.0, -0.7, 0.4 - 0.3j, 0.4 + 0.3j, 0.5, 0.5])
    taps = taps_of(poles, residues, 1200)
    checked(ssmid.distill(taps, 6), taps, poles)
