"""Classification losses for one label, several labels and labels of every frame, per sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actionprep.errors import UserError
from actionprep.training.evaluation.metrics import class_weights, positive_weights
from actionprep.training.recipes import LossSettings


class ClassificationLoss(nn.Module):
    """Loss of each sample.

    Shapes: logits (B, C), or (B, T, C) with one prediction per frame; target (B, C) or (B, T, C), share of each class;
    returns (B,). Frames that `frame_valid` (B, T) excludes do not count. A sample without a valid frame has the loss 0.

    With one label, cross-entropy is weighted by the class of the target. The weights are 1 on average over the training
    snippets, so that they do not change the effective learning rate.

    Args:
        settings: Name and parameters of the loss.
        target: Labels of the training snippets (S, C), from which class weights are computed; with several labels, the
            weights apply to positives.
        multi_label: Whether a sample can have several labels.

    Raises:
        UserError: If the loss does not suit the kind of labels.

    References:
        Focal loss: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4. Asymmetric loss (several
            labels): Ridnik et al., "Asymmetric Loss For Multi-Label Classification", ICCV 2021, equations 4 to 6; the
            focusing weights are not differentiated, as in the published training.
    """

    weight: Tensor

    def __init__(self, settings: LossSettings, target: np.ndarray, *, multi_label: bool) -> None:
        super().__init__()
        self.name = settings.name if settings.name != "auto" else ("bce" if multi_label else "cross-entropy")
        self.smoothing = settings.label_smoothing
        self.gamma = settings.gamma
        if self.name == "asymmetric" and not multi_label:
            raise UserError(
                "The loss 'asymmetric' requires snippets with several labels, and these have one label each. Use "
                'loss.name = "focal" or "cross-entropy" with loss.class_weights = "balanced".'
            )
        if self.name == "cross-entropy" and multi_label:
            raise UserError(
                "The loss 'cross-entropy' requires exactly one label per snippet, and these can have several or none. Use "
                'loss.name = "bce", "focal" or "asymmetric" ("auto" selects bce).'
            )
        self.multi_label = multi_label or self.name == "bce"
        self.gamma_positive, self.gamma_negative = settings.gamma_positive, settings.gamma_negative
        self.margin = settings.margin
        weight = np.ones(target.shape[1])
        if settings.class_weights == "balanced":
            weight = positive_weights(target) if self.multi_label else class_weights(target)
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32))

    def forward(self, logits: Tensor, target: Tensor, frame_valid: Tensor | None = None) -> Tensor:
        """Compute the loss of each sample, shape (B,)."""
        logits = logits.float()
        if target.ndim == 3 and logits.shape != target.shape:
            raise UserError(
                f"The snippets have labels for {target.shape[1]} time steps, but the logits of the model have shape "
                f"{tuple(logits.shape[1:])} per snippet, without time steps. Train on labels of full snippets: --set "
                "targets=snippet."
            )
        if logits.ndim == 3 and target.ndim == 2:
            target = target[:, None].expand(-1, logits.shape[1], -1)
        loss = self._by_label(logits, target) if self.multi_label else self._by_class(logits, target)
        if logits.ndim == 3:
            if frame_valid is None:
                return loss.mean(1)
            return (loss * frame_valid).sum(1) / frame_valid.sum(1).clamp(min=1)
        return loss

    def _by_class(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.smoothing:
            target = target * (1 - self.smoothing) + target.sum(-1, keepdim=True) * self.smoothing / target.shape[-1]
        log_p = F.log_softmax(logits, -1)
        loss = -target * log_p * self.weight
        if self.name == "focal":
            loss = loss * _focus(1 - log_p.exp(), self.gamma)
        return loss.sum(-1)

    def _by_label(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.smoothing:
            target = target * (1 - self.smoothing) + self.smoothing / 2
        if self.name == "asymmetric":
            return self._asymmetric(logits, target).mean(-1)
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.weight, reduction="none")
        if self.name == "focal":
            p = logits.sigmoid()
            loss = loss * _focus(target * (1 - p) + (1 - target) * p, self.gamma)
        return loss.mean(-1)

    def _asymmetric(self, logits: Tensor, target: Tensor) -> Tensor:
        p = logits.sigmoid()
        # A confident negative has no further effect.
        p_shifted = (p - self.margin).clamp(min=0)
        positive = target * F.logsigmoid(logits) * self.weight
        negative = (1 - target) * torch.log1p(-p_shifted.clamp(max=1 - 1e-6))
        with torch.no_grad():
            easy_positive, easy_negative = (1 - p) ** self.gamma_positive, p_shifted**self.gamma_negative
        return -(positive * easy_positive + negative * easy_negative)


def batch_loss(loss: ClassificationLoss, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Compute the loss (B,) of a batch from labels of time steps if it has any, else from those of its samples."""
    if "frame_target" not in batch:
        return loss(logits, batch["target"], batch.get("frame_valid"))
    return loss(logits, batch["frame_target"], counted_frames(batch))


def counted_frames(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mask of time steps with a frame and a known label, bool (B, T)."""
    known = batch["frame_known"]
    return known & batch["frame_valid"] if "frame_valid" in batch else known


def clip_logits(logits: Tensor, frame_valid: Tensor | None = None) -> Tensor:
    """Average logits of frames (B, T, C) over valid frames to logits (B, C); logits (B, C) are returned unchanged."""
    if logits.ndim == 2:
        return logits
    if frame_valid is None:
        return logits.mean(1)
    mask = frame_valid.unsqueeze(-1)
    return (logits * mask).sum(1) / mask.sum(1).clamp(min=1)


def _focus(missing: Tensor, gamma: float) -> Tensor:
    """The weight missing^gamma of a sample with probability 1 - missing; its gradient stays finite at 0."""
    return missing.clamp(min=1e-7) ** gamma
