"""Measured data to a system."""
