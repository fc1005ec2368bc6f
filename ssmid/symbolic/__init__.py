"""Linear systems as SymPy expressions: transfer functions, partial fractions, matrices, difference equations, LaTeX.

Two kinds of functions. :func:`expression`, :func:`matrices` and :func:`partial_fractions` take a system of ssmid, whose
numbers are floats: they stay floats, written as integers where they are integers, or become the simplest fractions that
round to the same float (``rational=True``). :func:`transfer_function`, :func:`state_space`, :func:`partial_fractions` and
:func:`difference_equation` work on SymPy objects: exact numbers stay exact and symbols stay symbols.
:func:`from_expression` goes back. Meant for systems that fit on a page.
"""

from ssmid.symbolic.forms import difference_equation, expression, latex, matrices, partial_fractions
from ssmid.symbolic.rational import from_expression, state_space, transfer_function

__all__ = [
    "difference_equation", "expression", "from_expression", "latex", "matrices", "partial_fractions", "state_space",
    "transfer_function",
]
