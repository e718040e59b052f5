"""Makes work_for_workers importable in spawned processes, which know nothing of pytest's way to import tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
