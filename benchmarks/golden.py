"""Recomputes tests/golden with the official code, on its own inputs and weights, and compares.

    python -m benchmarks.golden --repo PATH [--write]

PATH is a checkout of OpenMOSS/MOVA. Inputs (`in.*`), weights and what was drawn stay; everything else in the files is
computed anew by the official functions, unmodified. A line a file says how far that is from what is kept: nothing on
the machine and the versions that the README there names, float32 rounding elsewhere. `--write` keeps the new values.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.golden import HERE, relative_error, tensors

from .official_pipeline import from_file, load, pipeline

CHECKPOINT = HERE / "tiny_hf"
CLOSE = 5e-6
Given = dict[str, Tensor]
Made = dict[str, Tensor]


class Official:
    """The official code, and its pipeline on the checkpoint here. Kept between files; LoRAs ask for their own."""

    def __init__(self, repo: Path) -> None:
        self.repo, self.module = repo, load(repo)
        self.exact = self.pipeline()

    def pipeline(self, dtype: torch.dtype = torch.float32) -> Any:
        return pipeline(self.module, CHECKPOINT, dtype)


def forward(pipe: Any, given: Given, expert: str = "video_dit") -> tuple[Tensor, Tensor]:
    """One evaluation of both towers, as the official loop asks for it."""
    result: tuple[Tensor, Tensor] = pipe.inference_single_step(
        visual_dit=getattr(pipe, expert),
        visual_latents=given["in.visual_latents"],
        audio_latents=given["in.audio_latents"],
        context=given["in.context"].to(pipe.dtype),
        timestep=given["in.timestep"],
        audio_timestep=given["in.audio_timestep"],
        video_fps=float(given["in.fps"]),
    )
    return result[0].float(), result[1].float()


def one_forward(official: Official, given: Given, config: dict[str, Any]) -> Made:
    return dict(zip(("out.video", "out.audio"), forward(official.exact, given)))


def with_states(official: Official, given: Given, config: dict[str, Any]) -> Made:
    """A forward, with the hidden states after patchifying and after every layer."""
    pipe, seen = official.exact, {}
    plain = pipe.forward_dual_tower_dit

    def towers(**arguments: Any) -> Any:
        seen.update({f"p.{s}.patchify": arguments[f"{n}_x"] for s, n in (("video", "visual"), ("audio", "audio"))})
        return plain(**arguments)

    hooks = [
        block.register_forward_hook(lambda _, __, out, name=f"p.{stream}.block{n}": seen.update({name: out}))
        for stream, part in (("video", pipe.video_dit), ("audio", pipe.audio_dit))
        for n, block in enumerate(part.blocks)
    ]
    pipe.forward_dual_tower_dit = towers
    try:
        return one_forward(official, given, config) | seen
    finally:
        del pipe.forward_dual_tower_dit
        for hook in hooks:
            hook.remove()


def in_bfloat16(official: Official, given: Given, config: dict[str, Any]) -> Made:
    rough = dict(zip(("out.video", "out.audio"), forward(official.pipeline(torch.bfloat16), given)))
    return rough | {f"fp32.{name}": value for name, value in one_forward(official, given, config).items()}


def batch(official: Official, given: Given, config: dict[str, Any]) -> Made:
    """Two samples, one at a time: the official video head mixes the timesteps of a batch."""
    inputs = {name.removeprefix("diff/"): value for name, value in given.items()}
    rows = [{k: v if k == "in.fps" else v[n : n + 1] for k, v in inputs.items()} for n in range(2)]
    made = [forward(official.exact, row) for row in rows]
    return {f"diff/out.{name}": torch.cat(both) for name, both in zip(("video", "audio"), zip(*made))}


def schedule(official: Official, given: Given, config: dict[str, Any]) -> Made:
    made = {}
    kind = sys.modules["mova.diffusion.schedulers.flow_match_pair"].FlowMatchPairScheduler
    for variant, options in config["variants"].items():
        for steps in config["steps"]:
            scheduler = kind(**options["scheduler"])
            scheduler.set_timesteps(steps)
            if options["dual_sigma_shift"]:
                scheduler.set_pair_postprocess_by_name("dual_sigma_shift", **options["dual_sigma_shift"])
            pairs, name = scheduler.get_pairs(), f"{variant}/{steps}"
            made |= {f"{name}/pairs": pairs, f"{name}/pair_sigmas": scheduler.get_pairs("sigmas")}
            if variant == "deployed":
                made |= {f"{name}/{key}": value for key, value in steps_taken(scheduler, pairs[:, 0]).items()}
    return made


def steps_taken(scheduler: Any, timesteps: Tensor) -> Made:
    """The sigmas between which `step_from_to` walks: those of its grid that lie nearest."""
    start = torch.stack([scheduler.timestep_to_sigma(timestep) for timestep in timesteps])
    return {"timesteps": timesteps, "sigma_from.video": start, "sigma_to.video": torch.cat([start[1:], torch.zeros(1)])}


def loop(official: Official, given: Given, config: dict[str, Any]) -> Made:
    """The whole official call: picture and prompts in, video and sound out, every step noted."""
    pipe, made, rounds = official.exact, {}, []
    plain = {
        name: getattr(pipe, name) for name in ("inference_single_step", "prepare_latents", "_get_t5_prompt_embeds")
    }
    processor, step, texts = pipe.video_processor, pipe.scheduler.step_from_to, []

    def evaluate(**arguments: Any) -> Any:
        rounds.append((arguments, velocities := plain["inference_single_step"](**arguments)))
        return velocities

    def prepare(*arguments: Any, **more: Any) -> Any:
        made["in.image_preprocessed"] = arguments[0]
        latents, made["in.condition"] = plain["prepare_latents"](*arguments, **more)
        made["in.video_noise"] = latents
        return latents, made["in.condition"]

    def embed(prompt: str) -> Tensor:
        texts.append(found := plain["_get_t5_prompt_embeds"](prompt))
        return found

    def advance(velocity: Tensor, timestep: Tensor, until: Any, latents: Tensor) -> Tensor:
        number, stream = (len(rounds) - 1) // 2, "video" if latents.ndim == 5 else "audio"
        made.setdefault("in.audio_noise", latents) if stream == "audio" else None
        for name, (_, found) in zip(("pos", "neg"), rounds[-2:]):
            made[f"step{number}/pred_{name}.{stream}"] = found[stream == "audio"]
        made[f"step{number}/guided.{stream}"] = velocity
        made[f"step{number}/latents.{stream}"] = after = step(velocity, timestep, until, latents)
        return after

    def finish(video: Tensor, **_: Any) -> Tensor:
        return video

    pipe.inference_single_step, pipe.prepare_latents, pipe._get_t5_prompt_embeds = evaluate, prepare, embed
    pipe.scheduler.step_from_to, processor.postprocess_video = advance, finish
    crop = from_file(official.repo, "mova/datasets/transforms/custom.py").crop_and_resize
    call = config["call"]
    picture = crop(Image.fromarray(given["in.image_raw"].numpy()), call["height"], call["width"])
    torch.manual_seed(1234)
    try:
        made["out.video"], made["out.audio"] = pipe(config["prompts"]["pos"], picture, config["prompts"]["neg"], **call)
    finally:
        for name in plain:
            delattr(pipe, name)
        del pipe.scheduler.step_from_to, processor.postprocess_video
    last = call["num_inference_steps"] - 1
    made["out.video_vae_input"] = pipe.denormalize_video_latents(made[f"step{last}/latents.video"])
    made["out.audio_vae_input"] = made[f"step{last}/latents.audio"]
    made["timesteps"] = torch.stack([torch.cat([r["timestep"], r["audio_timestep"]]) for r, _ in rounds[::2]])
    for name, text in zip(("pos", "neg"), texts):
        made[f"in.context_{name}"] = text[:, : int(text.abs().sum(-1).ne(0).sum())]
    return made


def prompts(official: Official, given: Given, config: dict[str, Any]) -> Made:
    made = {}
    for number, prompt in enumerate(config["prompts"]):
        embedded = official.exact._get_t5_prompt_embeds(prompt)
        made[f"{number}/embeds"] = embedded[:, : int(embedded.abs().sum(-1).ne(0).sum())]
    return made


def crops(official: Official, given: Given, config: dict[str, Any]) -> Made:
    crop, made = from_file(official.repo, "mova/datasets/transforms/custom.py").crop_and_resize, {}
    for case in config["cases"]:
        picture = Image.fromarray(given[f"{case['i']}/input"].numpy())
        size = {"height": case["height"], "width": case["width"]}
        made[f"{case['i']}/preprocessed"] = official.exact.video_processor.preprocess(crop(picture, **size), **size)
    return made


def conditions(official: Official, given: Given, config: dict[str, Any]) -> Made:
    """`prepare_latents` with a VAE that answers with the latents of the case."""
    pipe, made = official.exact, {}
    plain = pipe.video_vae.encode
    for case in sorted({name.split("/")[0] for name in given if "/" in name}):
        frames = config["frames"][case]
        held = type("Encoded", (), {"latents": given[f"{case}/fake_latent"]})()
        pipe.video_vae.encode = lambda clip, held=held, case=case: (made.update({f"{case}/vae_input": clip}), held)[1]
        image, last = given[f"{case}/image"], given.get(f"{case}/last_image")
        size = {"height": image.shape[-2], "width": image.shape[-1], "num_frames": frames, "dtype": torch.float32}
        _, made[f"{case}/condition"] = pipe.prepare_latents(image, 1, **size, device="cpu", last_image=last)
    pipe.video_vae.encode = plain
    for name in ("latents_mean", "latents_std"):
        made[name] = torch.tensor(getattr(pipe.video_vae.config, name))
    return made


def codec(official: Official, given: Given, config: dict[str, Any]) -> Made:
    vae, made = official.exact.audio_vae, {}
    for length in config["lengths"]:
        name, wave = f"len{length}", given[f"len{length}/wave"]
        padded = vae.preprocess(wave, vae.sample_rate)
        mode = vae.encode(padded)[0].mode()
        made |= {f"{name}/preprocessed": padded, f"{name}/params": vae.quant_conv(vae.encoder(padded))}
        made |= {f"{name}/mode": mode, f"{name}/decoded": vae.decode(mode)}
        if length % vae.hop_length and length > vae.hop_length:
            made[f"{name}/mode_nopad"] = vae.encode(wave)[0].mode()
    return made | {f"decode{n}/audio": vae.decode(given[f"decode{n}/z"]) for n in (1, 2, 7)}


def loras(official: Official, given: Given, config: dict[str, Any]) -> Made:
    """Forwards through the official LoRA layers of either trainer, with the pairs of lora.safetensors."""
    pairs, made = tensors("lora")[0], {}
    lora_utils = from_file(official.repo, "mova/engine/trainer/accelerate/lora_utils.py")
    low_resource = from_file(official.repo, "mova/engine/trainer/low_resource/lora_layers.py")
    for case, options in config["cases"].items():
        pipe = official.pipeline()
        for part in options["parts"]:
            inject = low_resource.inject_lora_into_model if options["low_resource"] else lora_utils.inject_lora_to_model
            more = {"dtype": torch.float32} if options["low_resource"] else {}
            inject(getattr(pipe, part), rank=4, alpha=options["alpha"], **more)
            for name, parameter in getattr(pipe, part).named_parameters():
                if "lora_" in name:
                    pair = pairs[f"{part}.{name.removesuffix('.weight')}.weight"]
                    parameter.data = pair.bfloat16().float() if options["low_resource"] else pair
        for expert in options["experts"]:
            outputs = zip(("video", "audio"), forward(pipe, given, expert))
            made |= {f"{case}.{expert}.{name}": value for name, value in outputs}
    return made


FILES: dict[str, Callable[[Official, Given, dict[str, Any]], Made]] = {
    "a_hd32_base": with_states,
    **dict.fromkeys(("a_hd32_difft", "a_hd32_fps16", "a_hd32_fpsfrac", "a_hd32_single"), one_forward),
    "a_hd32_bf16": in_bfloat16,
    "a_hd32_batch2": batch,
    "b_schedule": schedule,
    "c_loop_fp32": loop,
    "d_crop_resize": crops,
    "d_image_cond": conditions,
    "e_dac_cases": codec,
    "g_lora_cases": loras,
    "h_prompt_embeds": prompts,
}


def difference(made: Tensor, held: Tensor) -> float:
    """The relative error; infinite where even the shape is another."""
    if made.shape != held.shape:
        return float("inf")
    return relative_error(made, held) if held.any() else float(made.any())


def cleaning(official: Official) -> int:
    """How many prompts the official functions clean otherwise than f_text_clean.json says."""
    stages = ("basic_clean", "whitespace_clean", "prompt_clean")
    pairs = json.loads((HERE / "f_text_clean.json").read_text(encoding="utf-8"))["pairs"]
    return sum(getattr(official.module, stage)(pair["input"]) != pair[stage] for pair in pairs for stage in stages)


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="a checkout of OpenMOSS/MOVA")
    parser.add_argument("--write", action="store_true", help="keep what was computed")
    parser.add_argument("files", nargs="*", help="only these, without the ending")
    chosen = parser.parse_args(given)
    official, worst = Official(chosen.repo), 0.0
    for name in chosen.files or FILES:
        held, config = tensors(name, HERE)
        with torch.no_grad():
            made = {key: value.clone().contiguous() for key, value in FILES[name](official, held, config).items()}
        kept = {key: made[key] for key in made if key in held}
        apart = max((difference(value, held[key]) for key, value in kept.items()), default=0.0)
        worst = max(worst, 0.0 if name == "a_hd32_bf16" else apart)
        print(f"{name}: {len(kept)} of {len(held)} tensors computed, {len(made) - len(kept)} new, {apart:.1e} apart")
        if chosen.write:
            save_file(held | made, HERE / f"{name}.safetensors", {"config": json.dumps(config)})
    print(f"f_text_clean: {(wrong := cleaning(official))} prompts cleaned otherwise")
    return int(worst > CLOSE or wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
