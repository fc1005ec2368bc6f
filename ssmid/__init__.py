"""ssmid: long convolution filters and impulse responses to small state-space models, and any linear system to any other form.

The public names stand in ``__init__.pyi`` and are loaded on first use (Scientific Python's SPEC 1): ``import ssmid`` imports
neither torch, matplotlib, sympy nor control.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
