"""Workflow templates that hold one stream, continue a clip, draft it, or write its prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tools.templates.parts import (
    DRAWING_PROMPT,
    FIRST_FRAME,
    FPS,
    GET_MODEL,
    PROMPT_STYLE,
    conditions,
    create_video,
    decode,
    first_frame,
    loader,
    sampler,
    save_video,
    text,
)
from tools.templates.template import Area, Node, Template

UNTRAINED = "**Not trained.** The released model learned picture and sound together from noise;"
SOUND, CLIP = "", ""  # nothing chosen: ComfyUI ships no sound and no clip, and a name that is not there shows red
NEXT_PROMPT = """This video has no subtitles. In a child's bright drawing, the girl with two big yellow pigtails on \
the green hill lets her arms sink, looks up at the white clouds and points at one of them. She says, "That one looks \
like a rabbit!" and turns back to the viewer, smiling.

The audio shows the same young girl's bright voice, close and clear, over a soft breeze and birds."""
FOLEY_PROMPT = """The clip as it is seen.

The audio shows footsteps on gravel, a wooden door that creaks open, and wind in the trees. Nobody speaks."""
FINISH = [Area("Decode and save", [["decode", "video", "save"]])]


def _finish(prefix: str, audio: Any = ("decode", 1), images: Any = ("decode", 0)) -> dict[str, Node]:
    return {"decode": decode(), "video": create_video(images, audio, ("decode", 2)), "save": save_video(prefix)}


def sound_to_picture() -> Template:
    held = {"latent": ("conditions", 2), "audio": ("sound", 0), "audio_vae": ("loader", 3)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(380),
            "sound": Node("LoadAudio", {"audio": SOUND}, width=340, height=110),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "hold": Node("MOVASoundToPicture", held, width=340),
            "sampler": sampler(latent=("hold", 0)),
            **_finish("video/MOVA_S2P", audio=("hold", 1)),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame and sound", [["picture", "sound"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Hold the sound, make the picture", [["hold", "sampler"]])],
            FINISH,
        ],
        note=f"""# A picture for a given sound

A recording is held as it is while the picture is made to it: lips, blows, steps. The file gets the original \
recording, cut to the clip, not its reconstruction.

{UNTRAINED} here it is shown a finished sound. The paper trained both streams at noise levels of their own, which is \
why it may work; how well lips fit has not been measured.

**Sound.** Any rate, mono or stereo. A longer one is cut at the end of the clip, a shorter one is followed by silence.

{GET_MODEL}

{PROMPT_STYLE} Say what is heard, word for word, although the sound is given: the picture reads the prompt too.

**Try**
- *bridge_cfg* 3.5 in *MOVA Sampler*: closer to the sound, for half as much time again
- *frames* for the length of your recording: seconds x 24, then the nearest 4n + 1""",
        note_height=560,
    )


def picture_to_sound() -> Template:
    given = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2)}
    source = {"images": ("scale", 0), "fps": FPS}
    size = {"upscale_method": "lanczos", "width": 640, "height": 352, "crop": "center"}
    walk = {"positive": ("hold", 0), "negative": ("hold", 1), "latent": ("hold", 2)}
    return Template(
        nodes={
            "loader": loader(),
            "clip": Node("LoadVideo", {"file": CLIP}, width=340, height=110),
            "parts": Node("GetVideoComponents", {"video": ("clip", 0)}, width=340),
            "scale": Node("ImageScale", {"image": ("parts", 0), **size}, width=340),
            "text": text(FOLEY_PROMPT, 380),
            "hold": Node("MOVAPictureToSound", {**given, **source}, width=500),
            "sampler": sampler(**walk),
            **_finish("video/MOVA_foley", images=("hold", 3)),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("Clip", [["clip", "parts", "scale"]])],
            [Area("Prompt", [["text", "hold"]])],
            [Area("Hold the picture, make the sound", [["sampler"]])],
            FINISH,
        ],
        note=f"""# A sound for a given picture

The pictures of a clip are held as they are while the sound is made to them. The file gets the pictures that went in.

{UNTRAINED} here it is shown a finished picture, through the expert of the last steps. For effects alone a foley model \
is still competitive.

**Clip.** 24 pictures a second, up to 8 seconds; *Upscale Image* brings it to a size that is a multiple of 16. Up to \
three pictures at the end are left out, to make 4n + 1.

{GET_MODEL}

{PROMPT_STYLE} Say what is seen in a sentence and what is heard in full.

**Try**
- *cfg* 3 where the sound is loud or distorted
- another *seed*: it costs the same, and sounds differ more than pictures""",
        note_height=560,
    )


def extend() -> Template:
    more = {"vae": ("loader", 2), "audio_vae": ("loader", 3), "images": ("decode", 0), "audio": ("decode", 1)}
    again = {"positive": ("next_text", 0), "negative": ("next_text", 1), **more}
    joined = {"images": ("decode", 0), "audio": ("decode", 1), "next_images": ("next_decode", 0)}
    joined |= {"next_audio": ("next_decode", 1), "fps": ("decode", 2), "overlap": 25}
    walk = {"positive": ("extend", 0), "negative": ("extend", 1), "latent": ("extend", 2), "seed": 43}
    tail = {"latent": ("next_sampler", 0), "vae": ("loader", 2), "audio_vae": ("loader", 3)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "decode": decode(),
            "next_text": text(NEXT_PROMPT, 426),
            "extend": Node("MOVAExtend", {**again, "fps": ("decode", 2), "frames": 217, "overlap": 25}, width=500),
            "next_sampler": sampler(**walk),
            "next_decode": Node("MOVADecode", {**tail, "tile_size": 0, "overlap": 64}, width=360),
            "join": Node("MOVAJoinClips", joined, width=360),
            "video": create_video(("join", 0), ("join", 1), ("decode", 2)),
            "save": save_video("video/MOVA_16s"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("First 8 seconds", [["text", "conditions"]])],
            [Area("Sample", [["sampler", "decode"]])],
            [Area("Next 8 seconds", [["next_text", "extend"]])],
            [Area("Sample again", [["next_sampler", "next_decode"]])],
            [Area("Join and save", [["join", "video", "save"]])],
        ],
        note=f"""# 16 seconds

A second clip begins with the last second of the first: its pictures and its sound are held, the rest is made to a \
prompt of its own. Sounds are matched in loudness and crossfaded; picture and sound end together, to the sample.

**Not trained.** MOVA knows clips of 8 seconds. Colours and voices drift from part to part; a voice carries on only as \
far as it is heard in the overlap.

{GET_MODEL}

**Try**
- a longer *overlap* (49) to carry a voice further; set it in both nodes
- a third part: *MOVA Extend* on the joined clip
- for many parts: *MOVA Save Segment*, *MOVA Segment Tail* and *MOVA Join Segments* keep them on disk, one run each""",
        note_height=560,
    )


def first_and_last_frame() -> Template:
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(340),
            "last": Node("LoadImage", {"image": FIRST_FRAME}, title="Last frame", width=340, height=340),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0), last_frame=("last", 0)),
            "sampler": sampler(),
            **_finish("video/MOVA_FLF"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First and last frame", [["picture", "last"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            FINISH,
        ],
        note=f"""# First and last frame

A clip from one picture to another.

**Not trained.** The mask that marks known pictures has a place for the last one, and the Wan 2.2 model the picture \
layers descend from was trained with it; MOVA's own training used the first alone.

{GET_MODEL}

{PROMPT_STYLE} Tell how the first picture becomes the last.

**Try**
- the same picture twice, for a loop
- *MOVA Guide Frames* for pictures at other places: positions "0, 96, -1" """,
    )


def draft_and_finish() -> Template:
    draft = {"first_frame": ("picture", 0), "height": 176, "batch_size": 4}
    trained = conditions(**draft)
    small = Node(trained.type, {**trained.inputs, "width": 320}, width=500)
    large = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2), "first_frame": ("picture", 0)}
    large |= {"width": 640, "height": 352, "frames": 193, "fps": FPS, "batch_size": 1}
    joined = {"video_latent": ("upscale", 0), "audio_latent": ("separate", 1)}
    up = {"samples": ("separate", 0), "upscale_method": "bilinear", "width": 640, "height": 352, "crop": "disabled"}
    keep = {"latent": ("joined", 0), "picture": "all", "sound": "nothing", "start": 0.0, "end": 1.0}
    walk = {"positive": ("large", 0), "negative": ("large", 1), "latent": ("keep", 0), "denoise": 0.6, "steps": 30}
    drafts = {"latent": ("sampler", 0), "vae": ("loader", 2), "audio_vae": ("loader", 3), "tile_size": 0, "overlap": 64}
    done = {**drafts, "latent": ("finish", 0)}
    picked = {"latent": ("sampler", 0), "images": ("drafts", 0), "audio": ("drafts", 1)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": small,
            "sampler": sampler(steps=20),
            "drafts": Node("MOVADecode", drafts, title="Decode drafts", width=340),
            "pick": Node("MOVAPickDraft", picked, width=340, height=160),
            "separate": Node("LTXVSeparateAVLatent", {"av_latent": ("pick", 0)}, title="Separate AV Latent", width=300),
            "upscale": Node("LatentUpscale", up, width=300),
            "joined": Node("LTXVConcatAVLatent", joined, title="Concat AV Latent", width=300),
            "keep": Node("MOVAMask", keep, title="Keep the sound", width=300),
            "large": Node("MOVAImageToVideoAudio", large, title="Full size", width=340),
            "finish": sampler(**walk),
            "decode": Node("MOVADecode", done, width=360),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_finished"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and draft size", [["text", "conditions"]])],
            [Area("Four drafts", [["sampler", "drafts", "pick"]])],
            [Area("Upscale the picture, keep the sound", [["separate", "upscale", "joined", "keep"]])],
            [Area("Finish", [["large", "finish"]])],
            FINISH,
        ],
        note=f"""# Draft and finish

Four small, quick drafts; the best by *MOVA Meter*'s measure is enlarged as a latent, its sound is held, and its \
picture is finished at full size.

**Not trained.** 320 x 176 is smaller than anything MOVA saw, and the finishing run is shown a finished sound. The \
meter is a diagnostic: whether sound begins when something moves, whether it clips or is silent. It does not look at \
faces.

{GET_MODEL}

**Try**
- *denoise* 0.4 to stay close to the draft, 0.8 to make more anew
- *batch_size* 1 for one draft, and look at it before you finish
- MOVA-720p in a second *MOVA Loader* for the finish, at 1280 x 720""",
        note_height=560,
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
    written = text("", 300)
    written = Node(written.type, {**written.inputs, "prompt": ("builder", 0)}, width=500, height=300)
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "builder": Node("MOVAPromptBuilder", script, width=500, height=760),
            "text": written,
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            **_finish("video/MOVA_built"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Script", [["builder"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            FINISH,
        ],
        note=f"""# A prompt from a script

*MOVA Prompt Builder* puts scene, speakers, lines and sounds into the order of the training captions: what is seen and \
said, then a paragraph on what is heard. Below itself it says whether the speech fits the clip and how many of the 512 \
tokens are used.

{GET_MODEL}

**Script.** Speakers one a line, "Name: look; voice"; lines one a row, "Name: words", in the order they are spoken and \
in their own language.

**Try**
- two speakers: say how they look, so that the right one moves the lips; several speakers are a weak point
- about 2.5 words a second of English""",
        note_height=520,
    )


def guide_frames() -> Template:
    guided = {"positive": ("conditions", 0), "negative": ("conditions", 1), "vae": ("loader", 2)}
    placed = {"latent": ("conditions", 2), "images": ("both", 0), "positions": "0, 96"}
    walk = {"positive": ("guides", 0), "negative": ("guides", 1)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(340),
            "middle": Node("LoadImage", {"image": FIRST_FRAME}, title="Frame 96", width=340, height=340),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "both": Node(
                "BatchImagesNode", {"images.image0": ("picture", 0), "images.image1": ("middle", 0)}, width=340
            ),
            "guides": Node("MOVAGuideFrames", {**guided, **placed}, width=340),
            "sampler": sampler(**walk),
            **_finish("video/MOVA_guides"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("Pictures", [["picture", "middle"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Where the pictures stand", [["both", "guides"]]), Area("Sample", [["sampler"]])],
            FINISH,
        ],
        note=f"""# Guide frames

Pictures at chosen frames of the clip, here the first and the one in the middle.

**Not trained.** MOVA's training gave it the first picture alone.

{GET_MODEL}

**Try**
- "0, -1" for first and last
- pictures that are close to each other: far ones make a cut""",
    )


def retake() -> Template:
    span = {"latent": ("sampler", 0), "picture": "nothing", "sound": "span", "start": 0.1, "end": 0.3}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "mask": Node("MOVAMask", span, width=340),
            "again": sampler(latent=("mask", 0), seed=43),
            "decode": Node(
                "MOVADecode",
                {
                    "latent": ("again", 0),
                    "vae": ("loader", 2),
                    "audio_vae": ("loader", 3),
                    "tile_size": 0,
                    "overlap": 64,
                },
                width=360,
            ),
            "video": create_video(("decode", 0), ("decode", 1), ("decode", 2)),
            "save": save_video("video/MOVA_retake"),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            [Area("Make a stretch again", [["mask", "again"]])],
            FINISH,
        ],
        note=f"""# Make a stretch again

A finished clip is kept but for a stretch of its sound, which is made again from another seed. *MOVA Mask* chooses by \
seconds: nothing, all, or a span of the picture and of the sound.

**Not trained.** What is kept runs along at the noise level of what is made; a stream that is kept whole is shown clean.

{GET_MODEL}

**Try**
- *sound* all: the same picture with another sound
- *picture* span, *sound* nothing: another gesture to the same words
- *bridge_cfg* 3.5 in the second sampler""",
    )


def relay() -> Template:
    name, more = "my_clip", {"vae": ("loader", 2), "audio_vae": ("loader", 3)}
    first = {"images": ("decode", 0), "audio": ("decode", 1), "fps": ("decode", 2), "name": name, "index": 0}
    tail = {"name": name, "index": ("keep", 0), "overlap": 25}
    given = {"positive": ("next_text", 0), "negative": ("next_text", 1), **more, "images": ("tail", 0)}
    given |= {"audio": ("tail", 1), "fps": ("tail", 2), "frames": 193, "overlap": 25}
    walk = {"positive": ("extend", 0), "negative": ("extend", 1), "latent": ("extend", 2), "seed": 43}
    done = {"latent": ("next_sampler", 0), **more, "tile_size": 0, "overlap": 64}
    second = {"images": ("next_decode", 0), "audio": ("next_decode", 1), "fps": ("next_decode", 2), "name": name}
    joined = {"name": name, "overlap": 25, "filename_prefix": "video/MOVA_long", "last": ("next_keep", 0)}
    return Template(
        nodes={
            "loader": loader(),
            "picture": first_frame(428),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(),
            "decode": decode(),
            "keep": Node("MOVASaveSegment", first, title="Keep part 0", width=360),
            "tail": Node("MOVASegmentTail", tail, title="End of part 0", width=340),
            "next_text": text(NEXT_PROMPT, 426),
            "extend": Node("MOVAExtend", given, width=500),
            "next_sampler": sampler(**walk),
            "next_decode": Node("MOVADecode", done, width=360),
            "next_keep": Node("MOVASaveSegment", {**second, "index": 1}, title="Keep part 1", width=360),
            "join": Node("MOVAJoinSegments", joined, width=360, height=356),
        },
        columns=[
            [Area("Model", [["loader"]]), Area("First frame", [["picture"]])],
            [Area("Part 0", [["text", "conditions"]])],
            [Area("Sample and keep", [["sampler", "decode", "keep"]])],
            [Area("Part 1", [["tail", "next_text", "extend"]])],
            [Area("Sample and keep the next", [["next_sampler", "next_decode", "next_keep"]])],
            [Area("Join", [["join"]])],
        ],
        note=f"""# A long clip, part by part through disk

Each part is kept in `output/mova_segments`, the next one reads only its last second, and *MOVA Join Segments* writes \
the parts into one file one after the other: memory does not grow with the clip.

**Not trained.** MOVA knows clips of 8 seconds; colours and voices drift from part to part.

{GET_MODEL}

**Try**
- part 2 and on: mute the areas of part 0 (Ctrl+M), set *index* of *End of part* and *Keep part* one higher, write \
what happens next, and run again
- a part that you do not like is replaced by running it again, with another *seed*""",
        note_height=560,
    )


def context_windows() -> Template:
    windows = {
        "model": ("loader", 0),
        "context_length": 97,
        "context_overlap": 33,
        "context_schedule": "standard_static",
    }
    windows |= {"context_stride": 1, "closed_loop": False, "fuse_method": "pyramid"}
    return Template(
        nodes={
            "loader": loader(),
            "windows": Node("WanContextWindowsManual", windows, width=340),
            "picture": first_frame(360),
            "text": text(DRAWING_PROMPT, 426),
            "conditions": conditions(width=500, first_frame=("picture", 0)),
            "sampler": sampler(model=("windows", 0)),
            **_finish("video/MOVA_windows"),
        },
        columns=[
            [Area("Model", [["loader", "windows"]]), Area("First frame", [["picture"]])],
            [Area("Prompt and size", [["text", "conditions"]])],
            [Area("Sample", [["sampler"]])],
            FINISH,
        ],
        note=f"""# Context windows

ComfyUI's own context windows, on picture and sound in step: each evaluation sees a part of the clip, and parts that \
overlap are blended. Memory is that of a window, and time grows with the length instead of its square.

**Not trained.** Each window knows only its own part of the story, and each is told the same prompt: good for \
ambience, poor for speech. For a story use *MOVA Extend*.

{GET_MODEL}

**Try**
- *frames* 385 for 16 seconds
- a larger *context_overlap* where seams show""",
    )


STREAM_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_sound_to_picture": sound_to_picture,
    "mova_picture_to_sound": picture_to_sound,
    "mova_extend": extend,
    "mova_first_last_frame": first_and_last_frame,
    "mova_draft_and_finish": draft_and_finish,
    "mova_prompt_builder": prompt_builder,
    "mova_guide_frames": guide_frames,
    "mova_retake": retake,
    "mova_relay": relay,
    "mova_context_windows": context_windows,
}
