"""Audience activation: audiences, segments, distribution."""

__version__ = "0.1.0"
