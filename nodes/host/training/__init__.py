"""LoRA training on ComfyUI's memory.

loop           the run, with saves, previews and progress; checks what can be wrong before it
data_set       recordings -> latents on disk; samples reads them back and shows each to its expert
weights        the weights of a step; budget what it takes; run_files, views and words what it leaves and says
"""
