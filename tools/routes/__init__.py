"""The demo's two ways to a clip: through ComfyUI, and through the core's own loop."""
