"""The method as one would first write it down: slow, literal, and beyond doubt. The scripts are timed and tested by it.

Photographs are decoded from their files again in every epoch; every patch and view is augmented by itself, on the CPU,
by torchvision's transforms; every view passes through the network as a batch of its own, in float32; measures are
scikit-learn's, and a loop over the pixels.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from DownStream.model import Decoder, Segmenter
from DualScaleNet.model import DualScaleNet

AUGMENTATION = v2.RandomChoice(
    [
        v2.RandomHorizontalFlip(0.5),
        v2.RandomVerticalFlip(0.5),
        v2.RandomRotation(45),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1),
        v2.RandomGrayscale(0.1),
    ]
)

# x_1..x_9, y_1..y_9 and v3, v4: of a photograph (3, h, w) each, of a batch (N, 3, h, w).
Views = tuple[list[Tensor], list[Tensor], list[Tensor]]


class Photographs(Dataset):
    """The views of each photograph, made from its file whenever it is asked for."""

    def __init__(self, paths: list[Path], size: int, recipe: str) -> None:
        self.paths, self.size, self.recipe = paths, size, recipe
        crop = [v2.RandomResizedCrop(size, scale=(0.2, 1.0))] if recipe == "paper" else []
        self.augment_whole = v2.Compose([*crop, AUGMENTATION])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Views:
        image = self.image(index).float() / 255
        side = self.size // 3
        corners = [(side * row, side * column) for row in range(3) for column in range(3)]
        patches = [image[:, top : top + side, left : left + side] for top, left in corners]
        x, y = ([AUGMENTATION(patch) for patch in patches] for _ in range(2))
        return x, y, [self.augment_whole(image) for _ in range(2)]

    def image(self, index: int) -> Tensor:
        """The photograph resized, uint8 (3, size, size); under the recipe `release` by plain bilinear sampling."""
        with Image.open(self.paths[index]) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
        return v2.functional.resize(pixels, [self.size, self.size], antialias=self.recipe == "paper")


def loader(paths: list[Path], size: int, recipe: str, batch_size: int, workers: int) -> DataLoader:
    """Shuffled batches of `Views`; the last incomplete one is dropped."""
    photographs = Photographs(paths, size, recipe)
    return DataLoader(photographs, batch_size, shuffle=True, drop_last=True, num_workers=workers)


def pretraining_step(model: DualScaleNet, optimizer: torch.optim.Optimizer, x: list, y: list, whole: list) -> None:
    """One step in float32 on a batch of `Views`."""
    optimizer.zero_grad()
    pretraining_loss(model, x, y, whole).backward()
    optimizer.step()


def pretraining_loss(model: DualScaleNet, x: list[Tensor], y: list[Tensor], whole: list[Tensor]) -> Tensor:
    """Both losses, halved, over a batch of `Views`. The model must be new or made with `per_view=False`.

    Its BatchNorm layers then are plain ones, and see one view at a time.
    """

    def project(view: Tensor, projector: nn.Module) -> Tensor:
        return projector(model.encoder(view)[-1].mean((2, 3)))

    p = [model.local_predictor(project(view, model.local_projector)) for view in x]
    z = [project(view, model.local_projector) for view in y]
    if model.stop_gradient:
        z = [vectors.detach() for vectors in z]
    positive = sum(1 - cosine(p[i], z[i]) for i in range(9))
    negative = sum(cosine(p[i], z[8 - i]) for i in range(9) if i != 4)
    local = 0.8 * positive + 0.2 * negative

    p3, p4 = (model.global_predictor(project(view, model.global_projector)) for view in whole)
    z3, z4 = (project(view, model.global_projector).detach() for view in whole)  # the encoder once more
    return 0.5 * -(cosine(p3, z4) + cosine(p4, z3)) / 2 + 0.5 * local


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the batch of the cosine of (N, D) with (N, D)."""
    return F.cosine_similarity(a, b, dim=1).mean()


def augmented(image: Image.Image, label: Image.Image, crop: int | None) -> tuple[Tensor, Tensor]:
    """The authors' augmentation of one photograph and its label, as a whole, then a random crop."""
    if torch.rand(()) < 0.5:
        angle = int(torch.randint(360, ()))
        image = v2.functional.rotate(image, angle, v2.InterpolationMode.BICUBIC)
        label = v2.functional.rotate(label, angle)
    for flip in (v2.functional.horizontal_flip, v2.functional.vertical_flip):
        if torch.rand(()) < 0.25:
            image, label = flip(image), flip(label)
    if crop:
        image, label = v2.RandomCrop(crop)(image, label)
    images, labels = (v2.functional.to_dtype(v2.functional.to_image(x), scale=True) for x in (image, label))
    return images, labels


def segmentation_step(model: Segmenter, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """One step in float32 of whatever is trainable in `model`. images (N, 3, H, W), labels (N, C, H, W)."""
    optimizer.zero_grad()
    F.binary_cross_entropy_with_logits(segmentation_logits(model, images), labels).backward()
    optimizer.step()


def segmentation_logits(model: Segmenter, images: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, C, H, W): all 64 channels are resized before the 1x1 convolution to the classes."""
    decoder = model.decoder
    if not isinstance(decoder, Decoder):
        raise TypeError("only the U-Net is written down here")
    c1, c2, c3, c4, x = model.encoder(images)
    for block, skip in zip(decoder.blocks, (c4, c3, c2, c1), strict=True):
        x = block(skip, x)
    x = F.interpolate(x, size=images.shape[2:], mode="bilinear", align_corners=True)
    return decoder.classifier(x)


def scores(probability: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The measures of metrics.py at threshold 0.5, of flat arrays: areas by scikit-learn, counts by a loop."""
    from sklearn import metrics  # in requirements-dev.txt

    precision, recall, _ = metrics.precision_recall_curve(label, probability)
    tp, fp, fn, tn = confusion(probability >= 0.5, label)
    return {
        "f1": 2 * tp / (2 * tp + fp + fn),
        "pr_auc": metrics.auc(recall, precision),
        "auroc": metrics.roc_auc_score(label, probability),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "iou": tp / (tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5,
    }


def confusion(mask: np.ndarray, label: np.ndarray) -> tuple[int, int, int, int]:
    """True and false positives, false and true negatives, pixel by pixel."""
    tp = fp = fn = tn = 0
    for predicted, true in zip(mask, label, strict=True):
        if predicted and true:
            tp += 1
        elif predicted:
            fp += 1
        elif true:
            fn += 1
        else:
            tn += 1
    return tp, fp, fn, tn
