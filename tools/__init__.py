"""Programs and helpers for people who work on the pack; ComfyUI never imports them."""
