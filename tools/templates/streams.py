"""Workflow templates that hold one stream, continue a clip, draft it, or make a part of it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tools.templates.parts import (
    FINISH,
    FPS,
    GET_MODEL,
    PROMPT_STYLE,
    REST,
    SAMPLE,
    SCENE,
    START,
    UNTRAINED,
    clip_graph,
    decode,
    picture,
    sampler,
    text,
)
from tools.templates.template import Area, Card, Node, Template

NOTHING_CHOSEN = ""  # ComfyUI ships no sound and no clip, and a name that is not there shows red
VAES = {"vae": ("loader", 2), "audio_vae": ("loader", 3)}
NEXT_PROMPT = """This video has no subtitles. In a child's bright drawing, the girl with two big yellow pigtails on \
the green hill lets her arms sink, looks up at the white clouds and points at one of them. She says, "That one looks \
like a rabbit!" and turns back to the viewer, smiling.

The audio shows the same young girl's bright voice, close and clear, over a soft breeze and birds."""
FOLEY_PROMPT = """The clip as it is seen.

The audio shows a soft wind over a meadow, rustling grass, a few birds and a cricket. Nobody speaks."""
INK_PROMPT = """This video has no subtitles. The scene of the clip as a moving ink painting on rough white paper: soft \
grey washes, dark brush lines, a little red. People and things move as they do in the clip, and ink bleeds at their \
edges.

The audio shows what is seen, close and quiet, over the rustle of paper. Nobody speaks."""


def sound_to_picture() -> Template:
    held = {"latent": ("conditions", 2), "audio": ("sound", 0), "audio_vae": ("loader", 3)}
    choose = "Choose your recording here first"
    return clip_graph(
        prefix="MOVA_S2P",
        nodes={
            "sound": Node("LoadAudio", {"audio": NOTHING_CHOSEN}, title=choose, width=340, height=110),
            "hold": Node("MOVASoundToPicture", held, width=340),
        },
        inputs={"sampler": {"latent": ("hold", 0)}, "video": {"audio": ("hold", 1)}},
        columns=[
            [Area("Model and recording", [["loader", "sound"]])],
            SCENE,
            [Area("Hold the sound, make the picture", [["conditions", "hold", "sampler"]])],
            FINISH,
        ],
        card=Card(("picture", "sound")),
        note=f"""# A picture for your recording

**First choose a recording** in the node below. The clip gets it as it is.

{UNTRAINED} How well lips fit is not measured.

{GET_MODEL}

{PROMPT_STYLE} Say every word that is heard.

**Try** *bridge_cfg* 3.5; *frames* = seconds x 24, then the nearest 4n + 1.""",
    )


def picture_to_sound(*, from_file: bool = False) -> Template:
    """A sound for a clip: for the drawing standing still, so that it runs as it is, or for a file that is chosen."""
    given = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2)}
    size = {"upscale_method": "lanczos", "width": 640, "height": 352, "crop": "center"}
    still = {
        "picture": picture("A still, until you load a clip", height=240),
        "parts": Node("RepeatImageBatch", {"image": ("picture", 0), "amount": 193}, width=340),
    }
    file = {
        "picture": None,
        "clip": Node("LoadVideo", {"file": NOTHING_CHOSEN}, width=340, height=110),
        "parts": Node("GetVideoComponents", {"video": ("clip", 0)}, width=340),
    }
    stack = ["clip" if from_file else "picture", "parts", "scale"]
    return clip_graph(
        prefix="MOVA_foley",
        prompt=FOLEY_PROMPT,
        nodes={
            **(file if from_file else still),
            "scale": Node("ImageScale", {"image": ("parts", 0), **size}, width=340),
            "conditions": None,
            "hold": Node("MOVAPictureToSound", {**given, "images": ("scale", 0), "fps": FPS}, width=340),
            "sampler": sampler("hold"),
        },
        inputs={"video": {"images": ("hold", 3)}},
        columns=[
            START,
            [Area("Clip and prompt", [[*stack, "text"]])],
            [Area("Hold the picture, make the sound", [["hold", "sampler"]])],
            FINISH,
        ],
        card=Card(("silent", "words")),
        note=f"""# A sound for your clip

The pictures stay as they are. To use a clip of yours: *Load Video* and *Get Video Components* in place of *Load \
Image* and *Repeat Image Batch*; 24 a second, up to 8 seconds.

{UNTRAINED}

{GET_MODEL}

**Prompt.** What is seen in a sentence, what is heard in full.

**Try** *cfg* 3 where it is harsh; another *seed*.""",
        note_height=540,
    )


def continued(source: str = "decode", frames: int = 217) -> dict[str, Node]:
    """A second clip after the first: prompt, conditioning by MOVA Extend from node `source`, sampler and decoder."""
    clip = {"images": (source, 0), "audio": (source, 1), "fps": (source, 2)}
    given = {"positive": ("next_text", 0), "negative": ("next_text", 1), **VAES, **clip}
    return {
        "next_text": text(NEXT_PROMPT),
        "extend": Node("MOVAExtend", {**given, "frames": frames, "overlap": 25}, width=340),
        "next_sampler": sampler("extend", seed=43),
        "next_decode": decode("next_sampler"),
    }


AGAIN = [Area("What comes next", [["next_text", "extend"]])]


def extend() -> Template:
    joined = {"images": ("decode", 0), "audio": ("decode", 1), "next_images": ("next_decode", 0)}
    joined |= {"next_audio": ("next_decode", 1), "fps": ("decode", 2), "overlap": 25}
    return clip_graph(
        prefix="MOVA_16s",
        nodes={**continued(), "join": Node("MOVAJoinClips", joined, width=340)},
        inputs={"video": {"images": ("join", 0), "audio": ("join", 1)}},
        columns=[
            START,
            SCENE,
            [Area("First 8 seconds", [["conditions", "sampler", "decode"]])],
            AGAIN,
            [Area("Next 8 seconds", [["next_sampler", "next_decode"]])],
            [Area("Join and save", [["join", "video", "save"]])],
        ],
        card=Card(("picture", "words", "words"), "long", "16 s"),
        note=f"""# Sixteen seconds

The second clip begins with the last second of the first, then goes on to a prompt of its own.

{UNTRAINED} Colours and voices drift.

{GET_MODEL}

**Try** *overlap* 49 in both nodes to carry a voice further. For many parts: **41 A long clip**.""",
    )


def first_and_last_frame() -> Template:
    return clip_graph(
        prefix="MOVA_FLF",
        nodes={"picture": picture(height=260), "last": picture("Last frame", 260)},
        inputs={"conditions": {"last_frame": ("last", 0)}},
        columns=[
            START,
            [Area("Pictures and prompt", [["picture", "last", "text"]])],
            SAMPLE,
            FINISH,
        ],
        card=Card(("picture", "picture"), "clip"),
        note=f"""# From one picture to another

{UNTRAINED} The mask that marks known pictures has a place for the last one.

{GET_MODEL}

{PROMPT_STYLE} Tell how the first becomes the last.

**Try** the same picture twice, for a loop.""",
    )


def draft_and_finish() -> Template:
    size = {"frames": 193, "fps": FPS}
    up = {"samples": ("separate", 0), "upscale_method": "bilinear", "width": 640, "height": 352, "crop": "disabled"}
    keep = {"latent": ("joined", 0), "picture": "all", "sound": "nothing", "start": 0.0, "end": 1.0}
    picked = {"latent": ("sampler", 0), "images": ("drafts", 0), "audio": ("drafts", 1)}
    joined = {"video_latent": ("upscale", 0), "audio_latent": ("separate", 1)}
    large = {"positive": ("text", 0), "negative": ("text", 1), "vae": ("loader", 2), "first_frame": ("picture", 0)}
    large |= {"width": 640, "height": 352, **size, "batch_size": 1}
    drafts = decode()
    return clip_graph(
        prefix="MOVA_finished",
        nodes={
            "drafts": Node(drafts.type, drafts.inputs, title="Decode drafts", width=340),
            "pick": Node("MOVAPickDraft", picked, width=340, height=150),
            "separate": Node("LTXVSeparateAVLatent", {"av_latent": ("pick", 0)}, title="Separate AV Latent"),
            "upscale": Node("LatentUpscale", up),
            "joined": Node("LTXVConcatAVLatent", joined, title="Concat AV Latent"),
            "keep": Node("MOVAMask", keep, title="Keep the sound"),
            "large": Node("MOVAImageToVideoAudio", large, title="Full size", width=340),
            "finish": sampler("large", latent=("keep", 0), denoise=0.6, steps=30),
            "decode": decode("finish"),
        },
        inputs={"conditions": {"width": 320, "height": 176, "batch_size": 4}, "sampler": {"steps": 20}},
        columns=[
            START,
            SCENE,
            [Area("Four drafts", [["conditions", "sampler", "drafts"]])],
            [Area("The best, enlarged, with its sound", [["pick", "separate", "upscale", "joined", "keep"]])],
            [Area("Full size", [["large", "finish"]])],
            FINISH,
        ],
        card=Card(("words", "drafts"), "clip", "best of 4"),
        note=f"""# Four quick drafts, the best one finished

It is enlarged as a latent; its sound is held while its picture is finished at full size.

{UNTRAINED} 320 x 176 is smaller than anything MOVA saw.

{GET_MODEL}

**Try** *denoise* 0.4 to stay close to the draft, 0.8 to make more anew; *batch_size* 1.""",
    )


def guide_frames() -> Template:
    guided = {"positive": ("conditions", 0), "negative": ("conditions", 1), "vae": ("loader", 2)}
    placed = {"latent": ("conditions", 2), "images": ("both", 0), "positions": "0, 96"}
    both = {"images.image0": ("picture", 0), "images.image1": ("middle", 0)}
    return clip_graph(
        prefix="MOVA_guides",
        nodes={
            "picture": picture(height=260),
            "middle": picture("Frame 96", 260),
            "both": Node("BatchImagesNode", both, width=340),
            "guides": Node("MOVAGuideFrames", {**guided, **placed}, width=340),
        },
        inputs={"sampler": {"positive": ("guides", 0), "negative": ("guides", 1)}},
        columns=[
            START,
            [Area("Pictures and prompt", [["picture", "middle", "text"]])],
            [Area("Size, and where they stand", [["conditions", "both", "guides"]])],
            [Area("Sampling", [["sampler"]])],
            FINISH,
        ],
        card=Card(("picture", "picture", "picture"), label="0, 96"),
        note=f"""# Pictures at chosen frames

Here the first and the one in the middle.

{UNTRAINED} Pictures that are far from each other make a cut.

{GET_MODEL}

**Try** *positions* "0, -1" for first and last.""",
    )


def retake() -> Template:
    span = {"latent": ("sampler", 0), "picture": "nothing", "sound": "span", "start": 0.1, "end": 0.3}
    return clip_graph(
        prefix="MOVA_retake",
        nodes={
            "mask": Node("MOVAMask", span, width=340),
            "again": sampler(latent=("mask", 0), seed=43),
            "decode": decode("again"),
        },
        columns=[START, *REST[:2], [Area("A stretch again", [["mask", "again"]])], FINISH],
        card=Card(("clip", "words"), "span"),
        note=f"""# A stretch of the sound again

A finished clip is kept but for a span of seconds, which is made again from another seed.

{UNTRAINED}

{GET_MODEL}

**Try** *sound* all: another sound to the same picture; *picture* span, *sound* nothing: another gesture.""",
    )


def video_to_video() -> Template:
    given = {"positive": ("text", 0), "negative": ("text", 1), **VAES, "video": ("clip", 0)}
    size = {"width": 640, "height": 352, "frames": 193}
    return clip_graph(
        prefix="MOVA_V2V",
        prompt=INK_PROMPT,
        nodes={
            "picture": None,
            "clip": Node(
                "LoadVideo", {"file": NOTHING_CHOSEN}, title="Choose your clip here first", width=340, height=110
            ),
            "conditions": None,
            "again": Node("MOVAVideoToVideo", {**given, **size}, width=340, room=60),
            "sampler": sampler("again", denoise=0.5),
        },
        columns=[
            START,
            [Area("Clip and prompt", [["clip", "text"]])],
            [Area("The clip as a latent, made anew", [["again", "sampler"]])],
            FINISH,
        ],
        card=Card(("clip", "words"), "clip", "anew"),
        note=f"""# A clip made anew

**First choose a clip** below, up to 8 seconds; its sound is made anew too. *denoise* of the sampler says how much \
changes: 0.5 begins at noise 0.83 of 1, 0.3 at 0.68.

{UNTRAINED}

{GET_MODEL}

**Prompt.** What the clip shows, in the look you want; last, "The audio shows ...".

**Try** *denoise* 0.3 to stay close, 0.8 for another scene; a repainted picture as *first_frame*; *MOVA Mask* with \
*sound* nothing to keep the sound.""",
        note_height=560,
    )


def relay() -> Template:
    clip, name = {"images": ("decode", 0), "audio": ("decode", 1), "fps": ("decode", 2)}, "my_clip"
    following = {"images": ("next_decode", 0), "audio": ("next_decode", 1), "fps": ("next_decode", 2)}
    tail = {"name": name, "index": ("keep", 0), "overlap": 25}
    joined = {"name": name, "overlap": 25, "filename_prefix": "video/MOVA_long", "last": ("next_keep", 0)}
    kept = {"name": name, "index": 0}
    return clip_graph(
        prefix="MOVA_long",
        nodes={
            "video": None,
            "save": None,
            "keep": Node("MOVASaveSegment", {**clip, **kept}, title="Keep part 0", width=340),
            "tail": Node("MOVASegmentTail", tail, title="End of part 0", width=340),
            **continued("tail", 193),
            "next_keep": Node("MOVASaveSegment", {**following, **kept, "index": 1}, title="Keep part 1", width=340),
            "join": Node("MOVAJoinSegments", joined, width=340, height=356),
        },
        columns=[
            START,
            SCENE,
            [Area("Part 0", [["conditions", "sampler", "decode"]])],
            [Area("Keep it, go on", [["keep", "tail", "next_text", "extend"]])],
            [Area("Part 1", [["next_sampler", "next_decode", "next_keep"]])],
            [Area("Join", [["join"]])],
        ],
        card=Card(("words", "words", "words"), "long", "part by part"),
        note=f"""# A long clip, part by part through disk

Each part lies in `output/mova_segments`; the next reads only its last second.

{UNTRAINED} Colours and voices drift.

{GET_MODEL}

**Try** part 2: mute the areas of part 0 (Ctrl+M), set both *index* one higher, write what happens next, run again.""",
    )


def context_windows() -> Template:
    length = {"context_length": 97, "context_overlap": 33, "context_schedule": "standard_static"}
    windows = {"model": ("loader", 0), **length, "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid"}
    return clip_graph(
        prefix="MOVA_windows",
        nodes={"windows": Node("WanContextWindowsManual", windows, width=340)},
        inputs={"sampler": {"model": ("windows", 0)}},
        columns=[[Area("Model", [["loader", "windows"]])], *REST],
        card=Card(("picture", "words"), "long", "windows"),
        note=f"""# Long ambience, window by window

ComfyUI's own context windows, on picture and sound in step: memory is that of a window.

{UNTRAINED} Good for ambience, poor for speech.

{GET_MODEL}

**Try** *frames* 385 for 16 seconds; a larger *context_overlap* where seams show.""",
    )


STREAM_TEMPLATES: Mapping[str, Callable[[], Template]] = {
    "mova_picture_to_sound": picture_to_sound,
    "mova_sound_to_picture": sound_to_picture,
    "mova_retake": retake,
    "mova_video_to_video": video_to_video,
    "mova_first_last_frame": first_and_last_frame,
    "mova_guide_frames": guide_frames,
    "mova_extend": extend,
    "mova_relay": relay,
    "mova_context_windows": context_windows,
    "mova_draft_and_finish": draft_and_finish,
}
