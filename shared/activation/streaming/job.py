"""`python -m activation.streaming.job`: starts the pipeline; what a flex template runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from activation.streaming.apps import AppSource
from activation.streaming.options import parsed


def main(arguments: Sequence[str]) -> None:
    """Start the pipeline with these parameters; others are Beam's own (--runner, --region …)."""
    options, rest = parsed(arguments)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from activation.streaming.pipeline import live

    about = PipelineOptions(rest, streaming=True)
    with beam.Pipeline(options=about) as pipeline:
        live(pipeline, options, AppSource(options.settings()))


if __name__ == "__main__":
    main(sys.argv[1:])
