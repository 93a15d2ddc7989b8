"""Workflow templates that open as an app: a few widgets, a Run button, and the clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tools.templates.basics import prompt_builder
from tools.templates.parts import GET_MODEL, with_inputs
from tools.templates.template import Card, Template

SAID = {  # what the app calls the widgets of the script, and how they are written
    "scene": "scene: where, and who is seen",
    "action": "action: what happens, in order",
    "speakers": "speakers: Name: look; voice",
    "lines": "lines: Name: words",
    "sounds": "sounds: what is heard besides",
}


def talk_app() -> Template:
    template = prompt_builder()
    save = template.nodes["save"]
    nodes = {
        **template.nodes,
        "builder": replace(template.nodes["builder"], labels=SAID),
        "sampler": replace(
            with_inputs(template.nodes["sampler"], bridge_cfg=3.5), labels={"steps": "steps: 50, or 25 for a draft"}
        ),
        "conditions": replace(template.nodes["conditions"], labels={"frames": "frames: 24 a second, 4n + 1"}),
        "save": with_inputs(save, filename_prefix="video/MOVA_talk"),
    }
    return replace(
        template,
        card=Card(("picture", "speech"), label="app"),
        nodes=nodes,
        app=[
            ("picture", "image"),
            *(("builder", widget) for widget in SAID),
            *(("conditions", widget) for widget in ("width", "height", "frames")),
            *(("sampler", widget) for widget in ("steps", "seed")),
        ],
        results=["save"],
        note=f"""# A person speaks, as an app

A picture and a script: all else is set. The switch at the top left leads to this graph and back.

{GET_MODEL}

**Consent.** Make clips of people only with their consent.

**Try** about 20 English words in 8 seconds; *steps* 25; *bridge_cfg* 1: a third of the time less, lips less exact.""",
    )


APP_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_talk.app": talk_app}
