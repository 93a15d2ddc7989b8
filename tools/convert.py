"""Convert a downloaded MOVA folder to single files in ComfyUI's model folders, or back, from any folder:

    python ComfyUI/custom_nodes/<this pack>/tools/convert.py FOLDER ComfyUI/models --precision fp8 --verify

Needs what ComfyUI has installed already; options and details with --help and in docs/files.md.
"""

import sys
from pathlib import Path

if not __package__:  # started as a script: the repository's packages are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mova_core.checkpoint.convert import main

if __name__ == "__main__":
    sys.exit(main())
