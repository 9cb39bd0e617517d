"""The attacks are a library of their own: APGD on any classifier of images in [0, 1].

Run it with ``python examples/attack_a_classifier.py``.
"""

import torch
from torch import nn

from attacks.apgd import apgd
from attacks.objective import Classification
from attacks.threat import ThreatModel


def main() -> float:
    """Attack a small random network on random images; returns and prints its robust accuracy."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))
    network.eval().requires_grad_(False)
    images = torch.rand(32, 3, 32, 32)
    labels = network(images).argmax(1)  # so that clean accuracy is 100 %

    outcome = apgd(Classification(network, labels), images, ThreatModel("linf", 2 / 255), steps=50)

    accuracy = float((network(outcome.images).argmax(1) == labels).float().mean())
    furthest = float((outcome.images - images).abs().max()) * 255
    print(f"robust accuracy {accuracy:.1%}, largest change {furthest:.2f}/255")
    print(f"{float(outcome.evaluations.float().mean()):.1f} gradient evaluations per image")
    return accuracy


if __name__ == "__main__":
    main()
