"""What a bug report needs to say, and nothing that belongs to the user alone.

Of paths only file names appear, of settings that hold text only that they are set, of prompts and latents nothing; what
is left of the user's name or home folder is blotted out at the end.
"""

import getpass
import os
import platform
import re
from collections import Counter
from enum import Enum
from pathlib import Path

import comfy.cli_args
import comfy.ldm.modules.attention
import comfy.memory_management
import comfy.model_management
import comfyui_version
import torch
from torch import nn

from ....mova_core.checkpoint.fingerprint import fingerprint
from ....mova_core.checkpoint.whole_file import file_state
from ....mova_core.errors import CheckpointError
from ....mova_core.preflight import GIB
from ..keys import BOUNDARY, LOW_NOISE, SOURCE_FILES, TIMELINE
from ..model.base_model import check_model
from ..patching.lora_names import ROOT
from ..patching.patcher import MovaPatcher
from .profiling import device_peak

PYPROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def report(model: MovaPatcher | None = None) -> str:
    """The whole report; about a MODEL too where one is given.

    Raises:
        ShapeError: the MODEL is not MOVA.
    """
    sections = {"Versions": versions(), "ComfyUI": host(), "Devices": devices()}
    if model is not None:
        check_model(model)
        sections |= {"Model": described(model), "Files": files(model), "Last run": last_run(model)}
    text = "\n\n".join(f"### {title}\n" + "\n".join(f"- {line}" for line in lines) for title, lines in sections.items())
    return without_names(text)


def versions() -> list[str]:
    """Of the pack and of what it runs on."""
    pack = re.search(r'^version = "([^"]+)"', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    computed = torch.version.cuda or getattr(torch.version, "hip", None) or "none"
    return [
        f"MOVA Native {pack[1] if pack else 'of unknown version'}",
        f"ComfyUI {comfyui_version.__version__}",
        f"torch {torch.__version__}, CUDA or HIP {computed}",
        f"Python {platform.python_version()}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
    ]


def host() -> list[str]:
    """What ComfyUI was told, and what it chose."""
    attention = comfy.ldm.modules.attention.optimized_attention
    return [
        f"flags: {', '.join(flags()) or 'none'}",
        f"attention: {getattr(attention, '__name__', type(attention).__name__)}",
        f"dynamic VRAM: {'on' if comfy.memory_management.aimdo_enabled else 'off'}",
        f"VRAM state: {comfy.model_management.vram_state.name}",
    ]


def flags() -> list[str]:
    """Command-line flags that are not at their default. Text, which may be a path or an address, is only said to be set."""
    default, found = comfy.cli_args.parser.parse_args([]), []
    for name, value in sorted(vars(comfy.cli_args.args).items()):
        usual = getattr(default, name, None)
        if value == usual or (not value and not usual):
            continue
        shown = [_plain(item) for item in (value if isinstance(value, list | tuple | set) else [value])]
        flag = "--" + name.replace("_", "-")
        if shown == ["True"]:
            found.append(flag)
        elif None in shown:
            found.append(f"{flag} (set)")
        else:
            found.append(f"{flag} {' '.join(sorted(map(str, shown)))}")
    return found


def _plain(value: object) -> str | None:
    """A setting in words; None for text."""
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, bool | int | float) else None


def devices() -> list[str]:
    """Names and memory. The peak is that of the last run."""
    management = comfy.model_management
    found = []
    for device in dict.fromkeys((management.get_torch_device(), torch.device("cpu"))):
        total, free = (ask(device) / GIB for ask in (management.get_total_memory, management.get_free_memory))
        line = f"{management.get_torch_device_name(device)}: {total:.1f} GiB, {free:.1f} free now"
        if peak := device_peak(device):
            line += f", {peak / GIB:.1f} in use at most since the last run began"
        found.append(line)
    return found


def described(model: MovaPatcher) -> list[str]:
    """Experts, sizes, precision and patches of a MOVA MODEL."""
    lows = model.get_additional_models_with_key(LOW_NOISE)
    boundary = f", change at sigma {model.get_attachment(BOUNDARY):g}" if lows else ""
    shifts = ", ".join(f"{shift:g}" for shift in model.model.shifts())
    lines = [f"experts: {1 + len(lows)}{boundary}", f"shifts of picture and sound: {shifts}"]
    alone = f"{model.expert} noise" if model.expert else "one expert"
    for name, patcher in zip(("high noise", "low noise") if lows else (alone,), (model, *lows)):
        lines.append(f"{name}: {_weights(patcher)}; {_patches(patcher)}")
    sizes = model.model.diffusion_model.sizes
    for name, tower in (("video", sizes.video), ("audio", sizes.audio)):
        lines.append(f"{name} tower: width {tower.width}, {tower.heads} heads, {tower.layers} layers")
    return lines


def _weights(patcher: MovaPatcher) -> str:
    held = dtypes(patcher.model.diffusion_model)
    return f"{patcher.model_size() / GIB:.2f} GiB ({held}), {patcher.loaded_size() / GIB:.2f} GiB loaded"


def dtypes(model: nn.Module) -> str:
    """How many weights of a model are kept in what: `431 bfloat16, 4 float32`."""
    count: Counter[str] = Counter()
    for parameter in model.parameters():
        count[type(parameter.data).__name__ if parameter.dtype == torch.uint8 else str(parameter.dtype)] += 1
    return ", ".join(f"{number} {kind.removeprefix('torch.')}" for kind, number in count.most_common())


def _patches(patcher: MovaPatcher) -> str:
    """How many weights are changed, by how many LoRAs or merges at most."""
    deepest = max(map(len, patcher.patches.values()), default=0)
    objects = sorted(patcher.object_patches)
    parts = Counter(key.removeprefix(ROOT).split(".")[0] for key in patcher.patches)
    where = f" ({', '.join(f'{number} {part}' for part, number in parts.most_common())})" if parts else ""
    return f"{len(patcher.patches)} weights patched{where}, at most {deepest} times; replaced: {', '.join(objects) or 'none'}"


def files(model: MovaPatcher) -> list[str]:
    """Name, size and fingerprint of each weight file: see `mova_core`'s `fingerprint`."""
    named = model.get_attachment(SOURCE_FILES)
    if not named:
        return ["not known: this MODEL did not come from a loader of this pack as it is"]
    lines = []
    for part, paths in named.items():
        for path in paths:
            lines.append(f"{part}: {path.name}, {_file(path)}")
    return lines


def _file(path: Path) -> str:
    state = file_state(path)
    if state is None:
        return "no longer there"
    try:
        return f"{state[1]} bytes, {fingerprint(path)}"
    except CheckpointError:  # its text would name folders
        return f"{state[1]} bytes, cannot be read"


def last_run(model: MovaPatcher) -> list[str]:
    """Time and memory of the run before, on this MODEL or a clone of it."""
    timeline = model.get_attachment(TIMELINE)
    return (timeline.lines() if timeline else []) or ["none with this MODEL since it was loaded"]


def without_names(text: str) -> str:
    """`text` without the user's home folder, user name and host name."""
    home = Path.home()
    if len(home.parts) > 1:  # not the root
        text = text.replace(str(home), "~").replace(home.as_posix(), "~")
    for name, instead in ((_user(), "<user>"), (platform.node(), "<host>")):
        if name:
            text = re.sub(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", instead, text, flags=re.IGNORECASE)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no variable names one, and the system has no table of users
        return Path(os.path.expanduser("~")).name  # noqa: PTH111
