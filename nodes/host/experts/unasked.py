"""What lies on a MODEL or a CONDITIONING and MOVA never asks for: said, so that nobody waits for it to work."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ..keys import Options
from ..patching.namesakes import named

Say: TypeAlias = Callable[[str], None]
ASKED = ("attn1_output_patch", "double_block")  # kinds of patches that MOVA's layers run
FOR_OTHERS = {
    "audio_embed": "Wan S2V's sound",
    "camera_conditions": "Wan's camera path",
    "clip_vision_output": "what CLIP saw of a picture",
    "context_latents": "Wan's context latents",
    "control_video": "a control video",
    "cross_attn_controlnet": "a ControlNet's prompt",
    "face_video_pixels": "Wan Animate's face",
    "guidance": "a distilled model's guidance",
    "keyframe_idxs": "LTXV's guide frames",
    "noise_concat": "pictures beside the latent",
    "pose_video_latent": "a video of poses",
    "ref_audio": "LTXV's reference voice",
    "reference_latents": "reference latents",
    "reference_motion": "Wan S2V's motion",
    "time_dim_concat": "Phantom's subjects",
    "vace_frames": "VACE's control video",
}
"""Keys that nodes for other models put on a CONDITIONING, and what they are."""


class Unasked:
    """What of a run has no effect, each told once: at its beginning, and as a step of another pack brings it in."""

    def __init__(
        self, options: Options, conditions: Mapping[str, Sequence[Mapping[str, object]]], layers: int, say: Say
    ) -> None:
        self.layers, self.say = layers, say
        self.known = dict.fromkeys(_patches(options["transformer_options"], layers))
        keys = {key for entries in conditions.values() for entry in entries for key in entry if entry[key] is not None}
        parts = [
            *self.known,
            *(f"{FOR_OTHERS[key]} ({key!r}) on the CONDITIONING" for key in sorted(keys & FOR_OTHERS.keys())),
        ]
        if parts:
            say(f"No effect on MOVA: {', '.join(parts)}. That is for other models; leave the node out")

    def look(self, options: Options) -> None:
        """At the transformer options of one evaluation: guidance by a perturbed model patches it for that alone."""
        found = [part for part in dict.fromkeys(_patches(options, self.layers)) if part not in self.known]
        self.known |= dict.fromkeys(found)
        if found:
            self.say(
                f"No effect on MOVA, at the cost of an evaluation each time: {', '.join(found)}. That is for other models; "
                "leave the node out"
            )


def _patches(options: Options, layers: int) -> Iterator[str]:
    for place, functions in options.get("patches", {}).items():
        if place not in ASKED:
            yield from _who(functions, place)
    blocks = {("double_block", layer) for layer in range(layers)}
    for kind, functions in options.get("patches_replace", {}).items():
        for place in functions if kind != "dit" else functions.keys() - blocks:
            spot = place if isinstance(place, tuple) else (place,)
            yield from _who([functions[place]], " ".join(map(str, (kind, *spot))))


def _who(functions: Iterable[object], place: str) -> Iterator[str]:
    for function in functions:
        yield f"{named(function)} at {place!r}"
