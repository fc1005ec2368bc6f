"""What trained layers store, and the linear systems that it means.

One file for each kind of layer: ``s4.s4``, ``diagonal.s4d`` and ``diagonal.dss``, ``lru.lru``, ``rtf.rtf``,
``striped_hyena.striped_hyena`` and ``striped_hyena.evo2_long``, ``hyena.hyena_filters``. All are differentiable and take
NumPy arrays or torch tensors.
"""
