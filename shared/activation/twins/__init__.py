"""Strict twins of ad platforms: local servers that accept what the real ones accept, no more.

They keep every audience as a set, so that a test can ask what a platform would now hold, and they
can be told to fail. Only facts verified in an SDK or stated by the vendor are asserted; what is
uncertain is a parameter (docs/platforms.md).
"""
