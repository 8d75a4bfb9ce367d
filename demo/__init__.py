"""`make demo`: a whole fleet on one machine, without GPU, Redis server, MinIO or the real checkpoint."""

import sys
from pathlib import Path

# Processes are started as the tests start them: a second starter would drift from theirs.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
