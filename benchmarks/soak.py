"""Many runs in one ComfyUI: memory does not grow, and a run that was stopped or failed leaves the next one whole.

    python -m benchmarks.soak [RUNS] [--gpu]

A tiny checkpoint on the CPU, or on the first GPU, whose memory is then watched too. Size, prompt, LoRA and expert
change from run to run; the first clip is made again at the end, after an interrupted run, and after one that ran out of
memory, and is the same to the pixel each time.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mova_core.checkpoint.files import read_header
from tests.fixtures.tiny_checkpoint import write_tiny_checkpoint
from tools.comfy.prompts import Graph
from tools.comfy.server import ComfyServer
from tools.comfy.starting import place_pack

ROOT = Path(__file__).resolve().parent.parent
SIZES = ((80, 48, 9), (64, 64, 13), (96, 64, 5))
PROMPTS = ("A bell rings.", "A dog barks at the sea. The audio shows waves.")
LORA = "soak.safetensors"
WARM = 5  # runs until every kind has been seen and allocators have their pools


@dataclass
class Report:
    """Resident bytes after each run, bytes in use of the card if one is used, and what went wrong."""

    resident: list[int] = field(default_factory=list)
    card: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Resident bytes that came to stay after warming up."""
        return growth(self.resident)


def growth(held: list[int]) -> float:
    """Bytes between the first runs after warming up and the last ones; 0 where there are too few to say."""
    kept = held[WARM:]
    third = len(kept) // 3
    return statistics.median(kept[-third:]) - statistics.median(kept[:third]) if third else 0.0


def graph(
    *, size: tuple[int, int, int] = SIZES[0], prompt: str = PROMPTS[0], seed: int = 1, expert: str = "both", **more: Any
) -> Graph:
    """A clip as an API graph. `lora` is a strength; `fail` is the forward that runs out of memory."""
    width, height, frames = size
    nodes: dict[str, dict[str, Any]] = {
        "load": node("MOVALoader", folder="tiny", weight_dtype="default"),
        "text": node("MOVATextEncode", clip=["load", 1], prompt=prompt, negative_prompt="blurry"),
    }
    clip = {"width": width, "height": height, "frames": frames, "fps": 24.0, "batch_size": 1}
    nodes["start"] = node("MOVAImageToVideoAudio", positive=["text", 0], negative=["text", 1], vae=["load", 2], **clip)
    model: list[Any] = ["load", 0]
    if expert != "both":
        nodes["split"] = node("MOVASplitExperts", model=model)
        model = ["split", 1 if expert == "low" else 0]
    if lora := more.get("lora"):
        nodes["lora"] = node("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=lora)
        model = ["lora", 0]
    if fail := more.get("fail"):
        nodes["fail"] = node("SoakOutOfMemory", model=model, call=fail)
        model = ["fail", 0]
    walk = {"seed": seed, "steps": more.get("steps", 3), "cfg": 3.0, "shift": 5.0, "audio_shift": 5.0, "denoise": 1.0}
    inputs = {"positive": ["start", 0], "negative": ["start", 1], "latent": ["start", 2]}
    nodes["walk"] = node("MOVASampler", model=model, sampler="euler", scheduler="mova", **inputs, **walk)
    parts = {"latent": ["walk", 0], "vae": ["load", 2], "audio_vae": ["load", 3]}
    nodes["decode"] = node("MOVADecode", tile_size=0, overlap=64, **parts)
    nodes["pictures"] = node("SaveImage", images=["decode", 0], filename_prefix="soak")
    nodes["sound"] = node("SaveAudio", audio=["decode", 1], filename_prefix="soak")
    return nodes


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def variant(index: int) -> dict[str, Any]:
    """What run `index` changes: sizes, prompts, LoRA and expert go round at different paces."""
    return {
        "size": SIZES[index % 3],
        "prompt": PROMPTS[index // 2 % 2],
        "expert": ("both", "both", "low", "high")[index % 4],
        "lora": (0, 0.8, 0.3, 0, 1.0)[index % 5],
        "seed": 100 + index,
    }


def write_files(base: Path) -> None:
    """The tiny checkpoint, a LoRA for both experts' first block, and the node that runs out of memory."""
    import torch
    from safetensors.torch import save_file

    write_tiny_checkpoint(base / "models" / "diffusers" / "tiny")
    header = next((base / "models" / "diffusers" / "tiny" / "video_dit").glob("*.safetensors"))
    rows, columns = read_header(header).shapes["blocks.0.self_attn.q.weight"]
    make = torch.Generator().manual_seed(0)
    key = "diffusion_model.blocks.0.self_attn.q"
    pair = {
        f"{key}.lora_A.weight": torch.randn(4, columns, generator=make),
        f"{key}.lora_B.weight": torch.randn(rows, 4, generator=make),
    }
    (base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    save_file(pair, base / "models" / "loras" / LORA)
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    place_pack(Path(__file__).parent / "soak_pack", base / "custom_nodes" / "soak")


def soak(server: ComfyServer, runs: int) -> Report:
    """`runs` different runs, then the broken ones; `write_files` came before the server."""
    report = Report()
    first = pictures(server, report, "the first run", seed=1)
    for index in range(runs):
        expect(server, report, f"run {index}", **variant(index))
        report.resident.append(resident(server))
        if not server.cpu:
            report.card.append(card())
    again(server, report, "after all of them", first)
    running = server.queue(graph(seed=2, steps=1000))
    server.wait_event("progress", prompt_id=running)
    server.interrupt(running)
    ended(report, "an interrupted run", server.wait(running), "interrupted")
    again(server, report, "after an interrupted run", first)
    for fail in (1, 3):  # in the first forward; after the change of expert
        ended(report, "out of memory", server.run(graph(seed=3, fail=fail)), "error")
        again(server, report, f"after running out of memory in forward {fail}", first)
    return report


def again(server: ComfyServer, report: Report, when: str, first: list[bytes]) -> None:
    """Make the first clip once more; one of another size comes before, so nothing of it is cached."""
    expect(server, report, f"{when}, another clip", size=SIZES[1], seed=9, lora=0.5)
    if pictures(server, report, when, seed=1) != first:
        report.problems.append(f"{when}, the first clip is another")


def pictures(server: ComfyServer, report: Report, when: str, **changes: Any) -> list[bytes]:
    """Pixels of every picture of a run."""
    from PIL import Image

    files = expect(server, report, when, **changes).files
    return [Image.open(path).tobytes() for path in files if path.suffix == ".png"]


def expect(server: ComfyServer, report: Report, when: str, **changes: Any) -> Any:
    result = server.run(graph(**changes))
    ended(report, when, result, "success")
    return result


def ended(report: Report, when: str, result: Any, status: str) -> None:
    if result.status != status:
        report.problems.append(f"{when}: {result.status} instead of {status} {result.message}")


def resident(server: ComfyServer) -> int:
    """Bytes of the server's process in memory. Linux only."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def card() -> int:
    """Bytes in use on the first card, by any process."""
    import pynvml

    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def main(runs: int, gpu: bool = False, flags: Sequence[str] = ()) -> int:
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        with ComfyServer(Path(folder), pack=ROOT, cpu=not gpu, arguments=flags) as server:
            report = soak(server, runs)
    for index, held in enumerate(report.resident):
        on_card = f", card {report.card[index] / 2**20:.0f} MiB" if report.card else ""
        print(f"run {index:2}: {held / 2**20:.0f} MiB{on_card}")
    grown = f"growth after warming up: {report.growth / 2**20:.1f} MiB"
    print(grown + (f", on the card {growth(report.card) / 2**20:.1f} MiB" if report.card else ""))
    print("\n".join(report.problems) or "every run ended as it should, and the first clip is the same each time")
    return bool(report.problems)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=20)
    parser.add_argument("--gpu", action="store_true", help="run on the first CUDA device")
    parser.add_argument("--flag", action="append", default=[], help="a flag for ComfyUI, as --flag=--novram")
    given = parser.parse_args()
    sys.exit(main(given.runs, given.gpu, given.flag))
