"""docs/images/tour.gif and run.png: ComfyUI's page at work, from the list of templates to the clip.

    python -m tools.docs.page_tour

The page is the real one; the checkpoint is the tiny one of random weights, so the pictures are noise. Needs ComfyUI,
Chromium, and scikit-image for the photograph.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from tools.comfy.browser import chromium
from tools.comfy.find import REPOSITORY
from tools.comfy.graph_picture import SMALL_TEXT_DRAWN
from tools.comfy.page import Page
from tools.comfy.page_scripts import CLOSE_OTHER_TABS
from tools.comfy.server import ComfyServer
from tools.docs.palette import IMAGES
from tools.templates.library import TEMPLATES
from tools.templates.published import FIRST_FRAME
from tools.templates.workflows import write_models

KEY = "mova_image_to_video_audio"
TOUR_SIZE, TOUR_COLORS, LIMIT = (1280, 800), 96, 1_000_000  # of the page; of the picture; bytes
TOUR_PROMPT = """This video has no subtitles. A woman in an orange space suit sits before a flag and a model of the \
space shuttle. She smiles, breathes in and looks up as a calm voice on the radio says, "T minus ten minutes and \
counting." The flag stirs while the camera moves closer.

The audio shows a man's calm voice over a crackling radio, the low hum of a hall, and the rustle of a suit."""
TOUR_CLIP = {"width": 256, "height": 144, "frames": 17, "steps": 6}  # for a CPU
VALUES = {**TOUR_CLIP, "image": "astronaut.png", "prompt": TOUR_PROMPT}

SET = """
(values) => {
  for (const node of app.graph._nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name in values) { widget.value = values[widget.name]; widget.callback?.(widget.value); }
    }
  }
}"""
LOOK = """
(types) => {
  const boxes = app.graph._nodes.filter((node) => types.includes(node.type)).map((node) => node.getBounding());
  const low = (axis) => Math.min(...boxes.map((box) => box[axis]));
  const high = (axis) => Math.max(...boxes.map((box) => box[axis] + box[axis + 2]));
  const view = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
  const [width, height] = [canvas.width - 70, canvas.height - 100];  // what side bar and top bars leave
  view.scale = 0.97 * Math.min(width / (high(0) - low(0)), height / (high(1) - low(1)));
  view.offset[0] = (60 + width / 2) / view.scale - (low(0) + high(0)) / 2;
  view.offset[1] = (95 + height / 2) / view.scale - (low(1) + high(1)) / 2;
  app.canvas.setDirty(true, true);
}"""
SEEK = """
(share) => Promise.all([...document.querySelectorAll('video')].map((video) => new Promise((done) => {
  video.pause();
  video.addEventListener('seeked', done, {once: true});
  video.currentTime = share * video.duration;
}))).then(() => true)"""
STEP = "app.graph._nodes.find((node) => node.type === 'MOVASampler')?.progress ?? 0"


class Reel:
    """Pictures of a page, each with how long it is shown."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[tuple[Image.Image, int]] = []

    def take(self, milliseconds: int) -> None:
        self.page.settle(0.05)
        shot = Image.open(io.BytesIO(self.page.tab.screenshot())).convert("RGB")
        self.frames.append((shot, milliseconds))

    def save(self, path: Path) -> None:
        """As a GIF, which every reader of Markdown moves; all frames share the colours of the whole."""
        strip = Image.new("RGB", (TOUR_SIZE[0], TOUR_SIZE[1] * len(self.frames)))
        for number, (shot, _) in enumerate(self.frames):
            strip.paste(shot, (0, number * TOUR_SIZE[1]))
        palette = strip.quantize(TOUR_COLORS)
        first, *others = (shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot, _ in self.frames)
        times = [time for _, time in self.frames]
        first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def tour(page: Page) -> Reel:
    """Templates, the first of them, a run with its progress and previews, the clip."""
    reel = Reel(page)
    page.resize(*TOUR_SIZE)
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates').then(() => true)")
    page.tab.get_by_text("mova", exact=True).first.click()
    page.settle(3)
    reel.take(2200)
    page.tab.get_by_text(TEMPLATES[KEY].file, exact=True).first.click()
    page.wait_for("app.graph._nodes.some((node) => node.type === 'MOVASampler')")
    page.settle(1)
    page.evaluate(CLOSE_OTHER_TABS)
    page.evaluate(SET, VALUES)
    page.fit()
    reel.take(2200)
    page.evaluate(LOOK, ["LoadImage", "MOVATextEncode"])
    reel.take(2400)
    page.evaluate(LOOK, ["MOVAImageToVideoAudio", "MOVASampler", "MOVADecode", "CreateVideo", "SaveVideo"])
    reel.take(900)
    page.start()
    seen = 0.0
    while not page.evaluate("window.__run.status"):
        if (now := page.evaluate(STEP)) != seen:
            seen = now
            reel.take(450)
    run = page.wait()
    if run.status != "success":
        raise RuntimeError(f"the run did not end well: {run.message}")
    page.wait_for("document.querySelector('video')?.readyState >= 2", timeout=30)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        page.evaluate(SEEK, share)
        reel.take(350)
    reel.take(1500)
    return reel


def main() -> None:
    from skimage import data  # the photograph is NASA's, in the public domain

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_models(base / "models")
        with chromium() as browser, ComfyServer(base, pack=REPOSITORY) as server:
            for name in (VALUES["image"], FIRST_FRAME):
                Image.fromarray(data.astronaut()).save(server.input / name)
            with Page.open(browser, server.url, settings={**SMALL_TEXT_DRAWN, "Comfy.VueNodes.Enabled": False}) as page:
                reel = tour(page)
    reel.save(IMAGES / "tour.gif")
    reel.frames[-1][0].quantize(256).save(IMAGES / "run.png", optimize=True)
    size = (IMAGES / "tour.gif").stat().st_size
    print(IMAGES / "tour.gif", size)
    if size > LIMIT:
        raise SystemExit(f"{size} bytes, of {LIMIT} at most: fewer COLORS, a smaller SIZE")


if __name__ == "__main__":
    main()
