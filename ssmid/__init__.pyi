from . import analysis, checkpoints, datasets, identification, interop, io, linalg, nn, parametrizations, plot, reduction, symbolic, systems
from .analysis.characteristics import Damping, damping, dc_gain, is_stable, poles, spectral_abscissa, spectral_radius, zeros
from .analysis.conversion import to_modal, to_sos, to_state_space, to_transfer_function, to_zpk
from .analysis.convert import Conversion, convert
from .analysis.discretization import c2d, d2c
from .analysis.gramians import gramian_factors, gramians
from .analysis.hankel import HankelSpectrum, hankel_singular_values, hankel_spectrum
from .analysis.impulse import impulse_response
from .analysis.interconnection import feedback, parallel, series, subtract
from .analysis.norms import norm
from .analysis.realization import balanced_realization, companion_realization, minimal_realization, modal_realization, similarity
from .analysis.simulation import simulate
from .analysis.spectrum import frequency_response, group_delay, magnitude_db, phase
from .checkpoints import Checkpoint, Layout, read_checkpoint, register_layout
from .distillation.certificate import Certificate
from .distillation.curves import OrderCurves, order_curves
from .distillation.model import DistilledModel
from .distillation.pipeline import distill
from .distillation.result import Distillation
from .distillation.weighted import input_spectrum
from .identification.aaa import AAAFit, aaa
from .identification.arx import arx
from .identification.confidence import pole_confidence, response_confidence
from .identification.era import Realization, era
from .identification.exponential_fit import ExponentialFit
from .identification.exponentials import esprit, matrix_pencil, prony
from .identification.frequency_subspace import frequency_subspace
from .identification.identify import identify
from .identification.initial_state import estimate_initial_state
from .identification.loewner import LoewnerFit, loewner
from .identification.okid import okid
from .identification.order import order_above_noise
from .identification.partial_fractions import RationalFit
from .identification.passivity import Passivity, Violation, passivity
from .identification.passivity_enforcement import PassiveFit, enforce_passivity
from .identification.pem import pem
from .identification.prediction_error import armax, box_jenkins, oe
from .identification.rational_least_squares import RationalLeastSquaresFit, estimate_delay, rational_least_squares
from .identification.record import Record
from .identification.result import Fit
from .identification.rkfit import rkfit
from .identification.subspace import SubspaceFit, cva, moesp, n4sid
from .identification.validation import fit_percent, predict, residual_test, validate
from .identification.vector_fitting import vector_fitting
from .interop import from_control, from_scipy, to_control, to_scipy
from .io import load, read, read_record, save
from .io.language_models import load_model, save_model
from .reduction.balanced import balanced_truncation
from .reduction.comparison import Comparison, compare
from .reduction.coprime import coprime_truncation
from .reduction.frequency_limited import frequency_limited_truncation, time_limited_truncation
from .reduction.h2 import h2_approximation
from .reduction.h2_result import H2Reduction
from .reduction.hankel_norm import hankel_norm_approximation
from .reduction.irka import irka
from .reduction.modal_truncation import modal_truncation
from .reduction.result import Change, Reduction, Result
from .reduction.stochastic import stochastic_truncation
from .systems import (
    Barycentric,
    ConversionWarning,
    FrequencyResponse,
    ImpulseResponse,
    Modal,
    SecondOrderSections,
    SparseStateSpace,
    StateSpace,
    System,
    TransferFunction,
    ZerosPolesGain,
    frd,
    from_ba,
    ss,
    tf,
    zpk,
)

__version__: str
