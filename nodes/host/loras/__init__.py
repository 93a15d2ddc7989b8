"""LoRA files onto a MODEL as ComfyUI's own weight adapters, and what is said of them."""
