"""Modal form: exact conjugates, honest about repeated and clustered poles, and back to states by pairs, ranks and channels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import ssmid
from ssmid._array import to_numpy
from ssmid.analysis.block_diagonal import block_diagonalize, block_sizes
from ssmid.analysis.conversion import to_modal, to_state_space
from ssmid.analysis.convert import convert
from ssmid.analysis.evaluation import evaluate
from ssmid.analysis.realization import modal_realization
from tests.analysis.test_conversion import CIRCLE, close, random_stable, taps_by_powers


def jordan(n, pole=0.5, coupling=1.0):
    A = pole * np.eye(n) + coupling * np.eye(n, k=1)
    return ssmid.StateSpace(A, np.eye(n)[:, -1:], np.eye(n)[:1])


# ---------------------------------------------------------------- into modal form


def test_conjugates_are_exact(xp, rng):
    modal = to_modal(random_stable(rng, 7, 5).map(xp.asarray))
    poles, residues = to_numpy(modal.poles), to_numpy(modal.residues)
    for p, r in zip(poles, residues, strict=True):
        for i in np.flatnonzero(p.imag):
            partner = np.flatnonzero(p == p[i].conj())
            assert partner.size == 1
            assert r[partner[0]] == r[i].conj()
        assert np.all(r[p.imag == 0].imag == 0)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("pole", [0.5, 0.0, -0.9])
def test_a_jordan_block_is_reported_and_still_answered(n, pole):
    system = jordan(n, pole)
    with pytest.warns(ssmid.ConversionWarning, match=r"repeated or clustered poles .*; ssmid.modal_realization keeps such poles"):
        modal = to_modal(system)
    close(modal, system, 1e-6 / (1 - abs(pole)) ** n)
    np.testing.assert_allclose(modal.poles, pole, atol=0.05)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_repeated_poles_of_a_factored_form_are_taken_apart(m):
    system = ssmid.zpk([0.2], [*[0.5 + 0.3j] * m, *[0.5 - 0.3j] * m, 0.9], 1.0)
    with pytest.warns(ssmid.ConversionWarning, match="to_modal: the system off by .* taken apart"):
        modal = to_modal(system)
    close(modal, system, 1e-7)
    assert modal.real
    assert len(np.unique(modal.poles)) == 2 * m + 1
    assert np.array_equal(np.sort_complex(modal.poles), np.sort_complex(modal.poles.conj()))


def test_only_the_elements_that_need_it_are_touched():
    poles = np.array([[0.5, 0.25], [0.5, 0.5], [0.1, 0.9]])
    system = ssmid.zpk(np.zeros((3, 0)), poles, np.ones(3))
    with pytest.warns(ssmid.ConversionWarning, match="1 of 3 elements"):
        modal = to_modal(system)
    np.testing.assert_array_equal(modal.poles[[0, 2]].real, np.sort(poles[[0, 2]]))
    close(modal, system, 1e-9)


def test_clusters_short_of_defective_are_measured(rng):
    """Poles 1e-3 apart, six of them: condition 1e15 and more, and the response is what the warning is about."""
    A = np.diag(0.5 + 1e-3 * np.arange(6)) + np.eye(6, k=1)
    system = ssmid.StateSpace(A, np.eye(6)[:, -1:], np.eye(6)[:1])
    with pytest.warns(ssmid.ConversionWarning, match="condition"):
        result = convert(system, "modal")
    assert result.condition > 1e10
    assert np.abs(evaluate(result.system, CIRCLE) - evaluate(system, CIRCLE)).max() < 2e-2 * np.abs(evaluate(system, CIRCLE)).max()


def test_condition_predicts_the_loss(rng):
    """Over pairs of poles at falling distances the error of the modal response stays below eps times the condition."""
    for gap in (1e-1, 1e-3, 1e-5):
        A = np.array([[0.5, 1.0], [0.0, 0.5 + gap]])
        result = convert(ssmid.StateSpace(A, np.ones((2, 1)), np.ones((1, 2))), "modal")
        assert 0.5 / gap < result.condition < 4 / gap
        assert result.backward_error < 10 * np.finfo(float).eps * result.condition


def test_defective_transfer_functions_split_like_their_roots():
    system = ssmid.tf([1.0, 0.3], np.poly([0.5, 0.5, 0.2]))
    modal = to_modal(system)
    close(modal, system, 1e-6)


# ---------------------------------------------------------------- out of modal form


def test_blocks_are_real_normal_and_have_the_poles(xp, rng):
    modal = to_modal(random_stable(rng, 6, 4))
    states = to_state_space(modal.map(xp.asarray)).map(xp.numpy)
    assert states.A.dtype == np.float64
    assert states.order == 6
    for i in range(4):
        assert np.allclose(states.A[i] @ states.A[i].T, states.A[i].T @ states.A[i], atol=1e-16)
        np.testing.assert_allclose(np.sort_complex(np.linalg.eigvals(states.A[i])), np.sort_complex(modal.poles[i]), atol=1e-15)
        np.testing.assert_allclose(np.linalg.norm(states.B[i]), np.linalg.norm(states.C[i]), rtol=1e-12)
    close(states, modal, 1e-13)


def test_banks_that_are_not_closed_are_closed(rng):
    """One pole of each pair with twice the residue, a real pole with complex residue, a lower pole, and a full pair, in one batch."""
    poles = np.array([[0.5 + 0.2j, 0.3, 0.1 - 0.6j], [0.4 + 0.1j, 0.4 - 0.1j, 0.2], [0.1, 0.2, 0.3]])
    residues = rng.standard_normal((3, 3)) + 1j * rng.standard_normal((3, 3))
    modal = ssmid.Modal(poles, residues, rng.standard_normal(3))
    states = to_state_space(modal)
    assert states.order == 5
    for i in range(3):
        one = states.map(lambda a, i=i: a[i])
        expected = (residues[i] * poles[i] ** np.arange(20)[:, None]).sum(-1).real
        np.testing.assert_allclose(taps_by_powers(one, 21)[0, 0, 1:], expected, atol=1e-14)
    assert to_state_space(modal.map(lambda a: a[1])).order == 3
    assert to_state_space(modal.map(lambda a: a[2])).order == 3


def test_repeated_pairs_take_two_blocks(rng):
    modal = ssmid.Modal([0.5j, 0.5j, -0.5j, -0.5j], [1 + 1j, 2, 1 - 1j, 2])
    states = to_state_space(modal)
    assert states.order == 4
    close(states, modal, 1e-14)


def test_complex_banks_are_diagonal(rng):
    modal = ssmid.Modal(0.5 * np.exp(1j * rng.uniform(0, 6, (2, 3))), rng.standard_normal((2, 3)) + 1j, 1j * np.ones(2), real=False)
    states = to_state_space(modal)
    assert states.A.dtype == np.complex128
    np.testing.assert_allclose(evaluate(states, CIRCLE), evaluate(modal, CIRCLE), rtol=1e-12)
    again = to_modal(states)
    assert not again.real
    np.testing.assert_allclose(evaluate(again, CIRCLE), evaluate(modal, CIRCLE), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_residues_of_any_scale(scale):
    modal = ssmid.Modal([0.5 + 0.2j, 0.5 - 0.2j], np.array([1 + 2j, 1 - 2j]) * scale)
    states = to_state_space(modal)
    np.testing.assert_allclose(evaluate(states, CIRCLE) / scale, evaluate(modal, CIRCLE) / scale, rtol=1e-12)


@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (2, 3), (3, 1)])
def test_gilbert_finds_the_order_again(xp, rng, outputs, inputs):
    system = random_stable(rng, 5, 2, inputs=inputs, outputs=outputs)
    modal = to_modal(system)
    if (outputs, inputs) == (1, 1):
        modal = modal.map(lambda a: a[:, None, None])
    back = to_state_space(modal.map(xp.asarray), mimo=True).map(xp.numpy)
    assert (back.order, back.outputs, back.inputs) == (5, outputs, inputs)
    close(back, system, 1e-11)


def test_gilbert_counts_ranks(rng):
    """A residue matrix of rank two takes two states, and four beside its conjugate; channels of their own take one a pole."""
    residue = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
    poles = np.array([[[0.5 + 0.3j, 0.5 - 0.3j, -0.2]]])
    modal = ssmid.Modal(poles, np.stack([residue, residue.conj(), np.outer([1, 2, 3], [1, 1])], -1), np.zeros((3, 2)))
    states = to_state_space(modal, mimo=True)
    assert states.order == 5
    close(states, modal, 1e-13)
    own = ssmid.Modal(rng.uniform(-0.9, 0.9, (2, 2, 3)), rng.standard_normal((2, 2, 3)))
    states = to_state_space(own, mimo=True)
    assert states.order == 12
    close(states, own, 1e-12)
    with pytest.raises(ValueError, match=r"mimo=True: expected a bank of batch shape .* got \(2,\)"):
        to_state_space(ssmid.Modal(np.ones((2, 1)), np.ones((2, 1))), mimo=True)


# ---------------------------------------------------------------- the block form


@pytest.mark.parametrize("n", [2, 4])
def test_a_jordan_block_stays_in_one_block(n):
    A = scipy.linalg.block_diag(jordan(n).A, [[-0.3, 0.4], [-0.4, -0.3]], [[0.1]])
    mix = np.random.default_rng(1).standard_normal(A.shape) + 3 * np.eye(len(A))
    system = ssmid.StateSpace(mix @ A @ np.linalg.inv(mix), np.ones((len(A), 1)), np.ones((1, len(A))))
    blocks, T = modal_realization(system, return_transform=True)
    assert sorted(block_sizes(np.where(np.abs(blocks.A) > 0, blocks.A, 0))) == sorted([n, 2, 1])
    assert np.linalg.cond(T) <= 1e6
    np.testing.assert_allclose(T @ blocks.A, system.A @ T, atol=1e-12)
    close(blocks, system, 1e-12)


def test_equal_poles_far_apart_in_the_schur_form_find_each_other():
    A = np.triu(np.ones((5, 5)), 1) + np.diag([0.5, -0.9, 0.1, 0.5, 0.9])
    X, D = block_diagonalize(A, 1e6)
    assert sorted(block_sizes(D)) == [1, 1, 1, 2]
    np.testing.assert_allclose(A @ X, X @ D, atol=1e-13)


def test_simple_pairs_are_normal_blocks(rng):
    blocks = modal_realization(random_stable(rng, 9)).A
    sizes = block_sizes(blocks)
    assert max(sizes) == 2
    start = 0
    for size in sizes:
        block = blocks[start : start + size, start : start + size]
        np.testing.assert_allclose(block @ block.T, block.T @ block, atol=1e-14)
        start += size


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 999), st.sampled_from([1e1, 1e4, 1e8]), st.sampled_from([0.0, 1e-12, 1e-6, 1e-2]))
def test_the_transform_keeps_its_bound(n, seed, bound, gap):
    """Random clusters: the similarity holds, the bound on the condition too, and loosening it never makes blocks coarser than one."""
    rng = np.random.default_rng(seed)
    poles = np.repeat(rng.uniform(-0.9, 0.9, (n + 1) // 2), 2)[:n] + gap * rng.standard_normal(n)
    A = np.diag(poles) + np.triu(rng.standard_normal((n, n)), 1)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = Q @ A @ Q.T
    X, D = block_diagonalize(A, bound)
    assert np.linalg.cond(X) <= bound * (1 + 1e-8)
    assert np.abs(A @ X - X @ D).max() <= 1e-12 * np.linalg.norm(A) * np.linalg.norm(X)
    assert sum(block_sizes(D)) == n


def test_block_form_over_array_libraries_and_batches(xp, rng):
    A = np.stack([jordan(3).A, random_stable(rng, 3).A])
    system = ssmid.StateSpace(A, np.ones((3, 1)), np.ones((1, 3)))
    blocks, T = modal_realization(system.map(xp.asarray), return_transform=True)
    assert xp.owns(blocks.A)
    assert xp.owns(T)
    assert block_sizes(xp.numpy(blocks.A)[0]) == [3]
    assert max(block_sizes(xp.numpy(blocks.A)[1])) <= 2
    close(blocks.map(xp.numpy), system, 1e-12)
    with pytest.raises(ValueError, match=r"max_condition: expected a number >= 1, got 0.5"):
        modal_realization(system, max_condition=0.5)
