"""Trained models on disk, layer by layer, as linear systems."""

from ssmid.checkpoints.convolution_layouts import CONVOLUTIONS
from ssmid.checkpoints.layouts import LAYOUTS, REQUIRED, Context, Layout, TensorSpec, forget_layout, register_layout
from ssmid.checkpoints.own_layouts import OWN
from ssmid.checkpoints.reading import Checkpoint, Layer, read_checkpoint
from ssmid.checkpoints.state_space_layouts import STATE_SPACES

for _layout in (*STATE_SPACES, *CONVOLUTIONS, *OWN):
    register_layout(_layout)

__all__ = [
    "Checkpoint", "Context", "LAYOUTS", "Layer", "Layout", "REQUIRED", "TensorSpec", "forget_layout", "read_checkpoint", "register_layout",
]  # fmt: skip
