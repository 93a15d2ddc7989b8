"""Two experts behind one MODEL.

pair           joined, split, changed at the boundary
every_run      what every run goes through, with whatever sampler; fitting holds its inputs against the model
step_caches    ComfyUI's EasyCache and LazyCache on two experts
"""
