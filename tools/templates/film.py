"""Templates of films: six shots from one text, and a recording that drives all shots."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mova_core.film.seams import MATCHING
from mova_core.text import NEGATIVE_PROMPT
from tools.templates.parts import FOLDED, FPS, GET_MODEL, PREVIEW, START, UNTRAINED, picture
from tools.templates.parts import loader as model_loader
from tools.templates.streams import NOTHING_CHOSEN
from tools.templates.template import Area, Card, Node, Template

STORY = """Mara: a girl of nine with two yellow pigtails and a pink dress; high and cheerful
Tom: an old man with a white beard and a straw hat; deep and slow
sound: a soft breeze, a few birds far away

[hill] picture 1, speech
scene: A child's bright drawing of a green hill under a blue sky.
Mara stretches her arms wide and rises on her toes.
Mara: Look at me, I can almost fly!

[wind] goes on, 4 s
Her pigtails lift in the wind and the clouds drift faster.

[gate] speech
scene: A wooden gate at the foot of the hill, long afternoon light.
Tom leans on the gate and shades his eyes with one hand.
Tom: Then fly home, supper is ready.

[path] 5 s
scene: A sandy path between tall grasses.
camera: The camera moves back in front of her.
Mara runs down the path and jumps over a puddle.

[table] goes on, speech
She stops, out of breath, and laughs.
Mara: Did you make pancakes?

[night] 5 s
scene: A small house with one lit window, stars above the hill.
sound: crickets, a door that closes
The window goes dark."""
VOICE = """Mara: a woman of thirty with short dark hair and a green scarf; warm
scene: A small radio studio, a microphone with a red light, wood on the walls.

[close] picture 1, recording
Mara speaks into the microphone and looks up.

[wide] recording
camera: From the side, the whole room in the picture.
Mara goes on speaking and moves her hands.

[hands] after close, recording
camera: Close on her face.
She speaks, smiles and leans back."""


def film(text: str, name: str, shots: Mapping[str, object]) -> dict[str, Node]:
    """Loader, first picture, shots, how they are sampled, and the film."""
    models = {"model": ("loader", 0), "clip": ("loader", 1), "vae": ("loader", 2), "audio_vae": ("loader", 3)}
    walk = {"steps": 50, "cfg": 5.0, "sampler": "euler", "scheduler": "mova", "denoise": 1.0, "bridge_cfg": 1.0}
    folded = {key: value for key, value in FOLDED.items() if key != "listen_every"}
    size = {"name": name, "width": 640, "height": 352, "fps": FPS, "seed": 42, "negative_prompt": NEGATIVE_PROMPT}
    joined = {"match_sound": MATCHING[0], "match_picture": MATCHING[0], "tile_size": 0, "size_limit": 50.0}
    given = {**models, "shots": ("shots", 0), **size, **joined, "settings": ("settings", 0)}
    return {
        "loader": model_loader(),
        "picture": picture(),
        "shots": Node("MOVAShotsFromText", {"text": text, **shots}, width=560, height=620, stretch=True),
        "settings": Node("MOVAFilmSampler", {**walk, **folded}, width=340),
        "film": Node("MOVAFilm", given, width=480, room=PREVIEW, stretch=True),
    }


def six_shots() -> Template:
    return Template(
        film(STORY, "film", {"pictures": ("picture", 0)}),
        [
            [*START, Area("First picture", [["picture"]])],
            [Area("Six shots", [["shots"]])],
            [Area("How each is sampled", [["settings"]])],
            [Area("The film", [["film"]])],
        ],
        f"""# A film of six shots

Change one shot and run again: only that one is made, and those that go on from it. All takes stay in \
`output/mova_films/film`. After a crash, run it again.

{UNTRAINED} Each shot by itself was.

{GET_MODEL}

**Shots.** `[name]` begins one; the help of *MOVA Shots from Text* has the whole grammar.

**Try** `seed 7` on a shot you do not like, `lock` on one you do, `take` and the first digits of a folder for an older \
one; *match_picture* where colours drift.""",
        card=Card(("picture", "words", "words"), "long", "6"),
        note_height=620,
    )


def one_voice() -> Template:
    nodes = film(VOICE, "voice", {"pictures": ("picture", 0), "audio": ("sound", 0)})
    sound = Node("LoadAudio", {"audio": NOTHING_CHOSEN}, title="Choose a recording here", width=340, height=110)
    return Template(
        {**nodes, "sound": sound},
        [
            [*START, Area("First picture and recording", [["picture", "sound"]])],
            [Area("Shots, a share of it each", [["shots"]])],
            [Area("How each is sampled", [["settings"]])],
            [Area("The film", [["film"]])],
        ],
        f"""# A film for one recording

The recording is cut at its pauses, a share for each shot with `recording`, and held while the picture is made to it. \
What is heard is the original.

{UNTRAINED} Each shot holds 8 seconds of it at most: add shots for a longer one.

{GET_MODEL}

**Consent.** Use voices of people only with their consent.

**Try** `0:12-0:18` in place of `recording` for a stretch of your own; *bridge_cfg* 3.5 for lips in better time.""",
        card=Card(("words", "sound"), "long", "voice"),
        note_height=620,
    )


FILM_TEMPLATES: Mapping[str, Callable[[], Template]] = {"mova_film": six_shots, "mova_film_voice": one_voice}
