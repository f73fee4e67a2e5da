"""Segments as a stream on Apache Beam: past one machine, the same steps as the functions take.

Only `shard_steps` and `pipeline` import Apache Beam, which has an environment of its own.
"""
