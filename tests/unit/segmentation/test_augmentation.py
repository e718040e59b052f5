import math

import torch

from diffground.segmentation.augmentation import turn_hue

RED, GREEN, BLUE = torch.eye(3).view(3, 3, 1, 1)


def test_a_third_of_a_turn_moves_each_primary_colour_to_the_next():
    third = torch.full((3,), 2 * math.pi / 3)
    turned = turn_hue(torch.stack([RED, GREEN, BLUE]), third)
    torch.testing.assert_close(turned, torch.stack([GREEN, BLUE, RED]), atol=1e-6, rtol=0)


def test_each_image_has_its_own_angle_and_keeps_its_grey():
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([0.0, 0.4, -1.0, math.pi])
    turned = turn_hue(images, angles)
    torch.testing.assert_close(turned.mean(dim=1), images.mean(dim=1))
    torch.testing.assert_close(turned[0], images[0])
    torch.testing.assert_close(turn_hue(turned, -angles), images)
    assert (turned[1:] - images[1:]).abs().amax(dim=(1, 2, 3)).min() > 0.1
