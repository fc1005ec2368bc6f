"""Fused kernels for GPUs, each with the plain function it stands for and is tested against; they know arrays and no systems."""
