"""Workflow templates that open as an app: a few widgets, a Run button, and the clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tools.templates.parts import GET_MODEL, sampler, save_video
from tools.templates.streams import prompt_builder
from tools.templates.template import Template


def talk_app() -> Template:
    template = prompt_builder()
    nodes = {**template.nodes, "sampler": sampler(bridge_cfg=3.5), "save": save_video("video/MOVA_talk")}
    return replace(
        template,
        nodes=nodes,
        app=[
            ("picture", "image"),
            *(("builder", widget) for widget in ("scene", "action", "speakers", "lines", "sounds")),
            ("sampler", "seed"),
            ("sampler", "steps"),
        ],
        results=["save"],
        note=f"""# Talk, as an app

A picture, what happens in it and what is said: all else is set. It opens as an app; the switch at the top left leads \
to this graph and back, and *Build an app* there chooses other widgets to show.

Inside, *MOVA Prompt Builder* writes the prompt, and *bridge_cfg* 3.5 is the guidance with which the lip sync of \
MOVA's paper was made; a step takes half as much time again for it.

{GET_MODEL}

**Consent.** A face and a voice belong to a person. Make clips of people only with their consent.

**Try**
- about 2.5 words a second of English, 20 in 8 seconds; the builder's report is on its node, in the graph
- *steps* 25 for a quicker draft
- *bridge_cfg* 1 in *MOVA Sampler*, in the graph: a third of the time less, lips less exact""",
        note_height=600,
    )


APP_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_talk.app": talk_app}
