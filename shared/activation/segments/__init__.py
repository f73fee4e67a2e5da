"""Evaluation of segments on arrays: pure, without stores and clocks.

All of it is numpy, imported at the top: whoever needs this room imports it inside a function, as
`App` does.
"""
