"""What the launcher of the flex template runs."""

import sys

from activation.streaming.job import main

main(sys.argv[1:])
