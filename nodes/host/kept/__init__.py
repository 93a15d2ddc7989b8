"""Joint latents in ComfyUI's folders, and what a value is made of as a hash that another process finds again."""
