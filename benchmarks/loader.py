"""What loading a folder costs: seconds and memory, in a process that does nothing else. Linux only.

python -m benchmarks.loader FOLDER     loads both experts as ComfyUI does, prints JSON
python -m benchmarks.loader --make FOLDER GIGABYTES
"""

import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIELDS = ("Rss", "Anonymous")


def make_folder(folder: Path, gigabytes: float) -> Path:
    """A folder in the published layout with as many bf16 weights as published ones, of random bits, this large in all.

    The number of weights is what assigning them takes time for; towers are narrower, by steps of one head.
    """
    import torch
    from safetensors.torch import save_file

    from mova_core.config import MOVA, MovaConfig
    from mova_core.model.mova import Mova
    from tests.fixtures import tiny_model as tiny

    def noise(shape: torch.Size) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int16).random_().view(torch.bfloat16)

    def sized(heads: int) -> MovaConfig:
        width, audio = 128 * heads, 128 * max(1, heads * 3 // 10)
        return MovaConfig(
            video=replace(MOVA.video, width=width, heads=heads, ffn_width=27 * width // 10),
            audio=replace(MOVA.audio, width=audio, heads=audio // 128, ffn_width=6 * audio),
            bridge=replace(MOVA.bridge, video_width=width, audio_width=audio),
        )

    heads = 1
    while _bytes(sized(heads + 1)) <= gigabytes * 1e9:
        heads += 1
    config = sized(heads)
    parts: tuple[str, ...] = ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge")
    tiny.write_published(folder, config, {part: {} for part in parts})
    shapes = tiny.split(dict(Mova(config, device="meta").state_dict()))
    for part in parts:
        source = shapes[part.removesuffix("_2")]
        tensors = {name: noise(meta.shape) for name, meta in source.items()}
        save_file(tensors, folder / part / tiny.WEIGHTS)
    return folder


def _bytes(config: Any) -> int:
    """Of both experts, audio tower and bridge, bf16."""
    from mova_core.model.mova import Mova

    model = Mova(config, device="meta")
    shared = [model.audio_dit, model.dual_tower_bridge]
    every = sum(p.numel() for p in model.parameters())
    return 2 * (2 * every - sum(p.numel() for part in shared for p in part.parameters()))


def resident() -> dict[str, int]:
    """Bytes of this process now, and at most so far."""
    found = dict.fromkeys((*FIELDS, "VmHWM"), 0)
    for path in ("/proc/self/smaps_rollup", "/proc/self/status"):
        for line in Path(path).read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found and rest.endswith("kB"):
                found[name] = int(rest.split()[0]) * 1024
    return found


def measure(folder: Path) -> dict[str, float]:
    """Load both experts through ComfyUI's node code; memory in shares of the files' bytes, beyond what was there."""
    import torch

    from tests.in_process import load_pack, prepare_comfyui

    pack = load_pack(prepare_comfyui(Path(tempfile.mkdtemp())))
    loading = pack.module("nodes.host.loaders.loading")
    source = pack.module("mova_core.checkpoint.source")
    files = sorted(folder.rglob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)
    gc.collect()  # as ComfyUI's server does between runs; else importing it is collected while the model loads
    before, begun = resident(), time.perf_counter()
    model = loading.load_model(source.from_folder(folder))
    seconds, after = time.perf_counter() - begun, resident()
    high, low = model.model.diffusion_model, model.low.model.diffusion_model
    for tower in (high, low):
        for parameter in tower.parameters():
            parameter.view(torch.int16).flatten()[::2048].sum()  # touch a value of every page
    touched = resident()
    shared = [
        (a.data_ptr(), b.data_ptr())
        for part in ("audio_dit", "dual_tower_bridge")
        for a, b in zip(high.get_submodule(part).parameters(), low.get_submodule(part).parameters(), strict=True)
    ]
    return {
        "bytes": size,
        "seconds": seconds,
        "seconds a GB": seconds / (size / 1e9),
        "anonymous": (after["Anonymous"] - before["Anonymous"]) / size,
        "anonymous after use": (touched["Anonymous"] - before["Anonymous"]) / size,
        "peak": (touched["VmHWM"] - before["Rss"]) / size,
        "mapped twice": sum(a != b for a, b in shared),
    }


def fresh(folder: Path) -> dict[str, float]:
    """`measure` in a new process, the files warm in the page cache."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass
    command = [sys.executable, "-m", "benchmarks.loader", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make_folder(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        print(json.dumps(measure(Path(sys.argv[1]))))
