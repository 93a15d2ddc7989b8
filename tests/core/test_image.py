"""The first-frame condition equals the official one to the bit, pixels included."""

import pytest
import torch

from mova_core import image
from mova_core.errors import ShapeError
from tests.golden import HERE, LARGER, PRISM, SETS, larger, tensors

CONDITIONS = [(case, HERE) for case in ("f9_first", "f17_firstlast")]
CONDITIONS += [larger(case, LARGER) for case in ("f9_first", "f17_first", "f9_firstlast", "f17_firstlast")]


@pytest.mark.parametrize("folder", SETS)
def test_crop_and_resize_equals_the_official_one(folder):
    golden, config = tensors("d_crop_resize", folder)
    for case in config["cases"]:
        source = golden[f"{case['i']}/input"][None]
        ours = image.crop_and_resize(source, case["height"], case["width"])
        assert torch.equal(ours, golden[f"{case['i']}/preprocessed"]), case


@pytest.mark.parametrize("folder", SETS)
def test_the_image_of_an_official_run_is_prepared_alike(folder):
    golden, config = tensors("c_loop_fp32", folder)
    ours = image.crop_and_resize(golden["in.image_raw"][None], config["call"]["height"], config["call"]["width"])
    assert torch.equal(ours, golden["in.image_preprocessed"])


@pytest.mark.parametrize("folder", [larger(PRISM, folder=PRISM)])
def test_prisms_picture_is_cropped_in_the_middle_brought_to_size_by_lanczos_and_never_stretched(folder):
    golden, _ = tensors("image", folder)
    ours = image.crop_and_resize(golden["source"][None], 48, 80, image.PRISM_FIT)
    as_bytes = ((ours[0].movedim(0, -1) + 1) / 2 * 255).round().to(torch.uint8)
    assert torch.equal(as_bytes, golden["80x48/official"])
    plain = image.crop_and_resize(golden["source"][None], 48, 80)
    stretched = golden["80x48/branch_stretch"].float() / 255 * 2 - 1
    assert (ours - plain).abs().mean() < 0.02 < 0.1 < (ours[0].movedim(0, -1) - stretched).abs().mean()


def test_prisms_crop_is_movas_but_for_a_pixel_in_few_sizes():
    sizes = [(height, width) for height in range(20, 300, 7) for width in range(20, 300)]
    boxes = [[image.crop_box(*size, 720, 1280, fit) for fit in (image.MOVA_FIT, image.PRISM_FIT)] for size in sizes]
    apart = [(mova, prism) for mova, prism in boxes if mova != prism]
    assert 0 < len(apart) < 0.01 * len(boxes)
    assert all(max(abs(a - b) for a, b in zip(mova, prism)) <= 1 for mova, prism in apart)


@pytest.mark.parametrize(("case", "folder"), CONDITIONS)
def test_the_clip_for_the_vae_equals_the_official_one(case, folder):
    golden, _ = tensors("d_image_cond", folder)
    theirs = golden[f"{case}/vae_input"]
    ours = image.condition_clip(golden[f"{case}/image"], theirs.shape[2], golden.get(f"{case}/last_image"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("case", "folder"), CONDITIONS)
def test_the_condition_equals_the_official_one(case, folder):
    golden, _ = tensors("d_image_cond", folder)
    mean, std = (golden[key].view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    latents = (golden[f"{case}/fake_latent"] - mean) * (1 / std)  # not / std: upstream rounds like this
    frames = golden[f"{case}/vae_input"].shape[2]
    mask = image.condition_mask(frames, *latents.shape[3:], batch=1, last=f"{case}/last_image" in golden)
    assert torch.equal(image.assemble_condition(mask, latents), golden[f"{case}/condition"])


def test_floating_point_pixels_give_the_same_as_the_nearest_8_bit_ones():
    pixels = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 32, 32, 3)
    for off in (-0.4, 0, 0.4):
        near = (pixels.float() + off) / 255
        assert torch.equal(image.crop_and_resize(near, 16, 48), image.crop_and_resize(pixels, 16, 48))


def test_pixels_out_of_range_are_clipped_and_alpha_is_ignored():
    wild = torch.tensor([-1.0, 2.0, 1.0, 0.5]).expand(1, 16, 16, 4)
    expected = torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert torch.equal(image.crop_and_resize(wild, 16, 16), expected)


def test_a_picture_of_the_right_size_is_only_rescaled():
    pixels = torch.randint(256, (2, 32, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(image.crop_and_resize(pixels, 32, 48), (pixels.float() / 255 * 2 - 1).movedim(-1, 1))


def test_the_crop_is_centred_fits_and_keeps_one_side_whole():
    for source_height in range(20, 60, 3):
        for source_width in range(20, 60, 3):
            left, top, right, bottom = image.crop_box(source_height, source_width, 48, 80)
            assert 0 <= left < right <= source_width
            assert 0 <= top < bottom <= source_height
            assert 0 <= (source_width - right) - left <= 1
            assert 0 <= (source_height - bottom) - top <= 1
            assert right - left == source_width or bottom - top == source_height


def test_only_the_given_frames_are_marked_as_given():
    first, both = (image.condition_mask(17, 2, 4, batch=2, last=last) for last in (False, True))
    assert first.shape == (2, 4, 5, 2, 4)
    assert first[:, :, 0].all()
    assert not first[:, :, 1:].any()
    assert (both - first)[:, 3, 4].all()
    assert (both - first).sum() == 2 * 2 * 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image.crop_and_resize(torch.zeros(16, 16, 3), 16, 16), "batch, height, width, 3"),
        (lambda: image.crop_and_resize(torch.zeros(1, 16, 16, 3), 20, 16), "16x16 and 16x32"),
        (lambda: image.crop_and_resize(torch.zeros(1, 0, 16, 3), 16, 16), "no side may be 0"),
        (lambda: image.crop_box(1000, 1, 16, 640), "too narrow"),
        (lambda: image.condition_clip(torch.zeros(1, 3, 16, 16), 8), "5 and 9"),
        (lambda: image.condition_clip(torch.zeros(1, 3, 16, 16), 9, torch.zeros(1, 3, 16, 32)), "resize them alike"),
        (lambda: image.condition_mask(1, 2, 2, last=True), "5 frames or longer"),
        (lambda: image.assemble_condition(torch.zeros(1, 4, 3, 2, 2), torch.zeros(1, 16, 5, 2, 2)), "no condition"),
    ],
)
def test_what_cannot_be_a_condition_is_refused_with_a_remedy(call, message):
    with pytest.raises(ShapeError, match=message):
        call()
