"""Workflow templates to begin with: a clip from a picture, from words, from a script; settings of its making."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.templates.parts import (
    FINISH,
    FPS,
    GET_MODEL,
    LORA_PAGE,
    PREVIEW,
    PROMPT_STYLE,
    REST,
    SAMPLE,
    SCENE,
    SHORE_PROMPT,
    START,
    UNTRAINED,
    clip_graph,
    create_video,
    file_properties,
)
from tools.templates.template import Area, Card, Node, Template


def image_to_video_audio() -> Template:
    return clip_graph(
        prefix="MOVA_I2VA",
        note=f"""# A picture and words become a clip

Eight seconds, picture and sound made together.

{GET_MODEL}

{PROMPT_STYLE}

**Try** your own picture (it is cropped in the middle), *steps* 25 or *frames* 97 for a draft, another *seed*.

**Preview.** *Settings > Live preview method > latent2rgb*: ComfyUI shows none by itself.""",
        note_height=580,
    )


def check_install() -> Template:
    script = {
        "scene": "A kitchen in the morning, an old man at the table",
        "action": "He lifts his cup, looks up and smiles",
        "speakers": "Tom: a thin old man with white hair; a low, dry voice",
        "lines": "Tom: Good morning. It works.",
        "sounds": "a cup set down on wood, birds outside",
        "music": "",
        "camera": "The camera does not move",
        "frames": 193,
        "fps": FPS,
    }
    return Template(
        card=Card((), "check"),
        nodes={
            "report": Node("MOVABugReport", {}, width=380, height=150),
            "machine": Node("PreviewAny", {"source": ("report", 0)}, title="The report", width=420, height=700),
            "builder": Node("MOVAPromptBuilder", script, width=420, height=700),
            "prompt": Node("PreviewAny", {"source": ("builder", 0)}, title="The prompt", width=380, height=700),
        },
        columns=[
            [Area("This machine", [["report"]])],
            [Area("What the pack sees", [["machine"]])],
            [Area("A script", [["builder"]])],
            [Area("Its prompt", [["prompt"]])],
        ],
        note=f"""# Does it work here?

Needs no model. Press **Run**: if *The report* and *The prompt* show text, the pack is installed.

The report goes under a bug report as it is.

{GET_MODEL}

**Try** more words in *lines*, until the builder says that they are too many. Then **01 Begin here**.""",
    )


def text_to_video_audio() -> Template:
    return clip_graph(
        prefix="MOVA_T2VA",
        prompt=SHORE_PROMPT,
        nodes={"picture": None},
        inputs={"conditions": {"first_frame": None}, "sampler": {"collapse_guard": "warn"}},
        columns=[START, [Area("Prompt", [["text"]])], SAMPLE, FINISH],
        card=Card(("words",)),
        note=f"""# Words alone become a clip

No picture is connected, so the prompt has to say what everything looks like.

{GET_MODEL}

{PROMPT_STYLE}

**Try** *collapse_guard* reseed where clips fade to flat colour; a picture made first, in **32 First frame by Wan**, \
is surer.""",
    )


def two_samplers() -> Template:
    walk = {"noise_seed": 42, "steps": 50, "cfg": 5.0, "sampler_name": "euler", "scheduler": "simple"}
    given = {"positive": ("conditions", 0), "negative": ("conditions", 1), **walk}

    def stage(expert: str, latent: tuple[str, int], title: str, **more: object) -> Node:
        inputs = {"model": (expert, 0), "latent_image": latent, **given, **more}
        return Node("KSamplerAdvanced", inputs, title=title, width=340, room=PREVIEW)

    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 18, "return_with_leftover_noise": "enable"}
    second = {
        "add_noise": "disable",
        "start_at_step": 18,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }
    shift = {"shift": 5.0}
    return clip_graph(
        card=Card(("picture", "words"), label="2 samplers"),
        prefix="MOVA_two_samplers",
        nodes={
            "sampler": None,
            "decode": None,
            "experts": Node("MOVASplitExperts", {"model": ("loader", 0)}, width=340),
            "high": Node("ModelSamplingSD3", {"model": ("experts", 0), **shift}, title="Shift, high noise", width=340),
            "high_sampler": stage("high", ("conditions", 2), "High noise: layout and motion", **first),
            "low": Node("ModelSamplingSD3", {"model": ("experts", 1), **shift}, title="Shift, low noise", width=340),
            "low_sampler": stage("low", ("high_sampler", 0), "Low noise: detail", **second),
            "separate": Node("LTXVSeparateAVLatent", {"av_latent": ("low_sampler", 0)}, title="Separate AV Latent"),
            "pictures": Node("VAEDecode", {"samples": ("separate", 0), "vae": ("loader", 2)}),
            "sound": Node("VAEDecodeAudio", {"samples": ("separate", 1), "vae": ("loader", 3)}),
            "video": create_video(("pictures", 0), ("sound", 0), FPS),
        },
        columns=[
            [Area("Model", [["loader", "experts"]])],
            SCENE,
            [Area("Size, high noise", [["conditions", "high", "high_sampler"]])],
            [Area("Low noise", [["low", "low_sampler"]])],
            [Area("Decode and save", [["separate", "pictures", "sound", "video", "save"]])],
        ],
        note=f"""# One sampler for each expert

The graph known from Wan 2.2, with ComfyUI's own samplers, for settings or LoRAs of one expert.

{GET_MODEL}

The experts change at noise level 0.9: with shift 5, step 18 of 50 or 9 of 25.

**Try** a Wan 2.2 LoRA after its *Shift* node. For other frames a second change both *fps*.""",
    )


SPOKEN_PROMPT = """This video has no subtitles. In a child's bright drawing, a girl with two big yellow pigtails and \
round blue eyes stands on a green hill under a blue sky with white clouds and looks straight at the viewer. She \
speaks slowly and clearly, her mouth opening wide with every word, and says, "My name is Mova. I can talk, and I can \
sing." She closes her mouth, smiles, and waits.

The audio shows a young girl's bright voice, close and clear, every word distinct, over a soft breeze."""
WHISTLED_SOUND = """The audio shows a girl who whistles a slow, happy tune, close and clear, over the hum of bees, a \
creaking wooden swing, and far church bells. Nobody speaks."""


def lip_sync() -> Template:
    given = {"model": ("loader", 0), "positive": ("conditions", 0), "negative": ("conditions", 1)}
    scales = {"text_cfg": 5.0, "audio_text_cfg": 0.0, "bridge_cfg": 3.5}
    spans = {"bridge_start": 0.0, "bridge_end": 1.0, "rescale": 0.0}
    steps = {"model": ("loader", 0), "scheduler": "simple", "steps": 50, "denoise": 1.0}
    walk = {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("euler", 0), "sigmas": ("steps", 0)}
    custom = {**walk, "latent_image": ("conditions", 2)}
    return clip_graph(
        prefix="MOVA_lip_sync",
        prompt=SPOKEN_PROMPT,
        nodes={
            "guider": Node("MOVAGuider", {**given, **scales, **spans}, width=340),
            "noise": Node("RandomNoise", {"noise_seed": 42}, width=340),
            "euler": Node("KSamplerSelect", {"sampler_name": "euler"}, width=340),
            "steps": Node("BasicScheduler", steps, width=340),
            "sampler": Node("SamplerCustomAdvanced", custom, width=340, height=280),
        },
        columns=[
            START,
            SCENE,
            [Area("Size, dual guidance", [["conditions", "guider"]])],
            [Area("Sampling", [["noise", "euler", "steps", "sampler"]])],
            FINISH,
        ],
        card=Card(("picture", "words", "speech"), label="lips"),
        note=f"""# Better lips, by dual guidance

Each step goes towards the prompt (*text_cfg*) and towards picture and sound that hear each other (*bridge_cfg*): half \
as much time again.

{GET_MODEL}

Published: lip confidence 6.28 -> 7.80, word error 0.177 -> 0.247. Not measured here.

**Try** *bridge_end* 0.5, *bridge_cfg* 2 for clearer words, or *bridge_cfg* in *MOVA Sampler*: the same in one node.""",
    )


def sound_prompt() -> Template:
    return clip_graph(
        prefix="MOVA_sound_prompt",
        inputs={"text": {"audio_prompt": WHISTLED_SOUND}},
        card=Card(("words", "sound")),
        note=f"""# One prompt for the picture, one for the sound

Each tower reads its own: *prompt* the picture's, *audio_prompt* the sound's. They still hear each other.

{UNTRAINED} Expect surprises.

{GET_MODEL}

**Try** music that the picture does not show; *audio_cfg* 7 in *MOVA Sampler*; an empty *audio_prompt*: one prompt for \
both, as trained.""",
    )


def bridge_control() -> Template:
    strength = {"audio_to_video": 0.0, "video_to_audio": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    return clip_graph(
        prefix="MOVA_bridge_control",
        nodes={"strength": Node("MOVABridgeStrength", {"model": ("loader", 0), **strength}, width=340)},
        inputs={"sampler": {"model": ("strength", 0)}},
        columns=[[Area("Model", [["loader", "strength"]])], *REST],
        card=Card(("picture", "sound"), label="0 ... 2"),
        note=f"""# How much picture and sound hear each other

Trained is 1 in both directions. Here the picture does not hear the sound (0), and the sound follows the picture (1).

{GET_MODEL}

**Try** 0 and 0: two that know nothing of each other; 1.5 and 1.5 with *end_percent* 0.4: tighter timing.""",
    )


LORAS = {noise: f"wan2.2_i2v_lightx2v_4steps_lora_v1_{noise}_noise.safetensors" for noise in ("high", "low")}


def lora() -> Template:
    parts = {f"strength_{part}": 1.0 for part in ("video", "audio", "audio_to_video", "video_to_audio")}

    def lora_loader(model: str, noise: str) -> Node:
        chosen = {"lora_name": LORAS[noise], "expert": "auto", "strength": 0.5, **parts}
        properties = file_properties(LORAS[noise], LORA_PAGE, "loras")
        return Node("MOVALoraLoader", {"model": (model, 0), **chosen}, width=340, height=300, properties=properties)

    return clip_graph(
        prefix="MOVA_LoRA",
        nodes={"high": lora_loader("loader", "high"), "low": lora_loader("high", "low")},
        inputs={"sampler": {"model": ("low", 0), "steps": 20, "cfg": 3.0}},
        columns=[START, [Area("LoRA, one file for each expert", [["high", "low"]])], *REST],
        card=Card(("picture", "words", "file")),
        note=f"""# LoRA: one file for each expert

Each goes where its name says; the node writes below itself what it changed.

{GET_MODEL}

**LoRA** into `models/loras`. These two are Wan 2.2's, **not trained on MOVA**: expect worse sound.

**Try** your own in the first node with the second bypassed (Ctrl+B), *steps* 50, *cfg* 5.""",
        note_height=520,
    )


def prompt_builder() -> Template:
    script = {
        "scene": "In a child's bright drawing, a girl stands on a green hill under a blue sky with white clouds",
        "action": "She blinks, looks at the viewer, and begins to wave her arms up and down like wings",
        "speakers": "Mova: a girl with two big yellow pigtails and round blue eyes; high and cheerful",
        "lines": "Mova: Look at me, I can almost fly!",
        "sounds": "a soft breeze, rustling grass and a few birds far away",
        "music": "",
        "camera": "The camera moves a little closer",
        "frames": 193,
        "fps": FPS,
        "clip": ("loader", 1),
    }
    return clip_graph(
        prefix="MOVA_built",
        nodes={"builder": Node("MOVAPromptBuilder", script, width=400, height=700)},
        inputs={"text": {"prompt": ("builder", 0)}},
        columns=[START, [Area("Script", [["builder"]])], *REST],
        card=Card(("picture", "script")),
        note=f"""# A prompt from a script

The builder puts scene, speakers, lines and sounds in order, and says whether the words fit into the clip.

{GET_MODEL}

**Script.** Speakers one a line, `Name: look; voice`. Lines one a row, `Name: words`.

**Try** two speakers, and say how each looks; about 2.5 words a second of English.""",
    )


BASIC_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_image_to_video_audio": image_to_video_audio,
    "mova_check_install": check_install,
    "mova_text_to_video_audio": text_to_video_audio,
    "mova_prompt_builder": prompt_builder,
    "mova_lip_sync": lip_sync,
    "mova_lora": lora,
    "mova_two_samplers": two_samplers,
    "mova_sound_prompt": sound_prompt,
    "mova_bridge_control": bridge_control,
}
