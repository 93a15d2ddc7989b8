"""From files to MODEL, CLIP and VAE.

loading        published folder or single files; attach takes an expert that another loader has loaded
text           UMT5; audio_vae the DAC codec as a VAE; grey_frames what is encoded after a first picture
vaes           what a VAE made, held against what was wanted
"""
