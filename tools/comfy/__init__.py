"""ComfyUI from outside: where it is, a server of one's own, its page in a browser."""
