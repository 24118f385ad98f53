from __future__ import annotations

import pytest
import torch

from finetuner_core.data.augment import _random_box, augment, generator_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator(height * 1000 + width))


@pytest.mark.parametrize("size", [(16, 16), (8, 20), (1, 1)])
@pytest.mark.parametrize("mirror", [True, False])
def test_gives_images_of_the_size_asked_for(size: tuple[int, int], mirror: bool) -> None:
    images = [noise(20, 20), noise(30, 17), noise(1, 1), noise(1, 40), noise(3, 3)]
    varied = augment(images, size, generator(), mirror=mirror)
    assert [(image.dtype, image.shape) for image in varied] == [(torch.uint8, (3, *size))] * len(images)


@pytest.mark.parametrize("mirror", [True, False])
def test_follows_from_the_generator(mirror: bool) -> None:
    images = [noise(20, 20)] * 4
    first = torch.stack(augment(images, (9, 9), generator(1), mirror=mirror))
    assert torch.equal(first, torch.stack(augment(images, (9, 9), generator(1), mirror=mirror)))
    assert not torch.equal(first, torch.stack(augment(images, (9, 9), generator(2), mirror=mirror)))
    # Another part each time, and what was given stays as it is.
    assert len({tuple(image.flatten().tolist()) for image in first}) == 4
    assert torch.equal(images[0], noise(20, 20))


@pytest.mark.parametrize(("height", "width"), [(200, 200), (240, 180), (150, 290)])
def test_the_part_is_inside_and_large_enough(height: int, width: int) -> None:
    source = generator()
    boxes = [_random_box(height, width, source) for _ in range(2000)]
    for top, left, box_height, box_width in boxes:
        assert 0 <= top <= top + box_height <= height
        assert 0 <= left <= left + box_width <= width
        share = box_height * box_width / (height * width)
        # Each side is rounded by up to half a pixel.
        assert share >= 0.35 - (box_height + box_width) / 2 / (height * width)
        # A side at its full length was shortened to it, the others are as the bounds say.
        if box_height < height and box_width < width:
            assert 3 / 4 - 0.02 <= box_width / box_height <= 4 / 3 + 0.02
    shares = torch.tensor([h * w / (height * width) for _, _, h, w in boxes])
    # All of what is allowed comes about, evenly but for what does not fit.
    assert shares.min() < 0.36
    assert shares.max() > (0.95 if max(height, width) / min(height, width) <= 4 / 3 else 0.75)
    assert 0.35 < shares.quantile(0.1) < 0.45
    assert {top for top, *_ in boxes} >= {0, 1, 2}
    assert any(top + h == height and left + w == width for top, left, h, w in boxes)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (1, 500), (400, 3), (2, 2)])
def test_the_part_of_an_extreme_image_is_inside(height: int, width: int) -> None:
    source = generator()
    for _ in range(500):
        top, left, box_height, box_width = _random_box(height, width, source)
        assert 0 <= top < top + box_height <= height
        assert 0 <= left < left + box_width <= width


def test_shows_the_part_and_nothing_else() -> None:
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(100), indexing="ij")
    image = torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8)
    for seed in range(20):
        top, left, height, width = _random_box(100, 100, generator(seed))
        (shown,) = augment([image], (24, 24), generator(seed), mirror=False)
        for channel, first, length in ((0, top, height), (1, left, width)):
            # Resizing takes means of neighbours, so the outermost pixels may differ by about one.
            step = length / 24
            assert shown[channel].min() == pytest.approx(first + (step - 1) / 2, abs=1)
            assert shown[channel].max() == pytest.approx(first + length - 1 - (step - 1) / 2, abs=1)
        assert bool((shown[2] == 7).all())


def test_mirrors_half_of_the_time_where_asked_to() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1)
    for mirror, least, most in ((False, 0, 0), (True, 440, 560)):
        varied = augment([ramp] * 1000, (8, 8), generator(), mirror=mirror)
        mirrored = [bool(image[0, 0, 0] > image[0, 0, -1]) for image in varied]
        assert least <= sum(mirrored) <= most
        # Left and right change places, and up and down do not.
        assert all(torch.equal(image, image.flip(-2)) for image in varied)


class TestGeneratorOf:
    def test_is_the_same_each_time_and_in_each_version(self) -> None:
        assert torch.equal(generator_of(3, 1, 7).get_state(), generator_of(3, 1, 7).get_state())
        # printf '3 1 7' | sha256sum: the first eight bytes, the least first.
        assert generator_of(3, 1, 7).initial_seed() == int.from_bytes(bytes.fromhex("dff5ae21509d9763"), "little")

    def test_no_two_batches_share_it(self) -> None:
        numbers = range(-3, 12)
        seeds = {generator_of(a, b, c).initial_seed() for a in numbers for b in numbers for c in numbers}
        assert len(seeds) == len(numbers) ** 3
        # Digits that move from one number to the next make another batch.
        assert len({generator_of(*key).initial_seed() for key in ((1, 11, 1), (11, 1, 1), (1, 1, 11))}) == 3

    def test_a_step_further_changes_half_of_the_bits(self) -> None:
        for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            changed = [
                generator_of(5, 2, k).initial_seed()
                ^ generator_of(5 + shift[0], 2 + shift[1], k + shift[2]).initial_seed()
                for k in range(1000)
            ]
            # Each of 64 bits in half of 1000 cases: 500, with a deviation of 16.
            for bit in range(64):
                assert 420 < sum(one >> bit & 1 for one in changed) < 580

    def test_first_numbers_of_neighbours_are_even_and_unrelated(self) -> None:
        first = torch.stack([torch.rand(2, generator=generator_of(0, 1, step)) for step in range(4000)])
        assert torch.allclose(first.mean(0), torch.full((2,), 0.5), atol=0.02)
        assert torch.allclose(first.var(0), torch.full((2,), 1 / 12), atol=0.005)
        after = torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1]
        assert after.abs() < 0.06  # of 4000 independent pairs, one deviation is 0.016

    def test_takes_any_integer(self) -> None:
        for seed in (0, -1, 2**63, 2**200):
            assert generator_of(seed, 10**9, 10**12).device.type == "cpu"
