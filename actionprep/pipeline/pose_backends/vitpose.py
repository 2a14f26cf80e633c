"""Estimate poses with ViTPose from transformers, in given boxes or in those that RT-DETR detects."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from actionprep.pipeline.pose_backends import FramePoses, Frames, check_frames, with_scores
from actionprep.pipeline.pose_backends.boxes import RTDetrPeople, load_pretrained, weights_digest


class ViTPose:
    """ViTPose (Xu et al., NeurIPS 2022) with the 17 joints of COCO.

    Args:
        model: Folder or hub name.
        detector: Folder or hub name of the RT-DETR that detects people if no boxes are given. It is loaded on first use.
            None: the full frame is the box of one person.
        person_score: Lowest confidence of a detected person.
        device: Device of the models, for example "cuda".
        batch_size: Crops per batch.

    Raises:
        SetupError: If transformers or the weights are missing.
    """

    name = "vitpose"
    skeleton = "coco17"

    def __init__(
        self,
        *,
        model: str = "usyd-community/vitpose-base-simple",
        detector: str | None = "PekingU/rtdetr_r18vd",
        person_score: float = 0.5,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        self._model = load_pretrained("VitPoseForPoseEstimation", model).to(device).eval()
        self._processor = _processor(self._model.config.backbone_config.image_size)
        self._device, self._batch = device, batch_size
        self._detector_name, self._person_score = detector, person_score
        self._detector: RTDetrPeople | None = None
        self.model = model

    def estimate(self, frames: Frames, boxes: Sequence[ArrayLike] | None = None) -> list[FramePoses]:
        """Estimate one person per box (see `PoseEstimator.estimate`)."""
        import torch

        people = check_frames(frames, boxes)
        if people is None:
            people = self._people(frames)
        crops = [(index, box) for index, rows in enumerate(people) for box in rows[:, :4]]
        estimated: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(crops), self._batch):
            part = crops[start : start + self._batch]
            # The processor expects left, top, width and height.
            sides = [[[*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]] for _, box in part]
            images = [frames[index] for index, _ in part]
            inputs = self._processor(images, boxes=sides, return_tensors="pt", input_data_format="channels_last")
            given = {"pixel_values": inputs["pixel_values"].to(self._device)}
            if getattr(self._model.config.backbone_config, "num_experts", 1) > 1:
                # Selects the expert for the joints of COCO.
                given["dataset_index"] = torch.zeros(len(part), dtype=torch.long, device=self._device)
            with torch.inference_mode():
                outputs = self._model(**given)
            outputs.heatmaps = outputs.heatmaps.cpu()
            for [person] in self._processor.post_process_pose_estimation(outputs, boxes=sides):
                estimated.append(
                    np.concatenate([person["keypoints"].numpy(), person["scores"].numpy().reshape(-1, 1)], 1)
                )
        remaining = iter(estimated)
        result = []
        for rows in people:
            joints = [next(remaining) for _ in rows]
            if not joints:
                result.append(FramePoses.nobody(17))
                continue
            keypoints = np.stack(joints).astype(np.float32)
            keypoints[..., 2] = keypoints[..., 2].clip(0)
            result.append(FramePoses(keypoints, with_scores(rows)))
        return result

    def reset(self) -> None:
        """Do nothing: frames are independent."""

    def identity(self) -> dict[str, str]:
        """Return the model, the hash of its weights, and the detector."""
        own = {"backend": "vitpose", "model": self.model, "weights": weights_digest(self._model)}
        detector = self._detect()
        return {**own, **(detector.identity() if detector is not None else {"detector": "whole frame"})}

    def close(self) -> None:
        """Free the memory of the models."""
        self._model = self._detector = None

    def _people(self, frames: Frames) -> list[NDArray[np.float32]]:
        detector = self._detect()
        if detector is not None:
            return detector(frames)
        height, width = frames.shape[1:3]
        return [np.array([[0, 0, width, height, 1]], np.float32)] * len(frames)

    def _detect(self) -> RTDetrPeople | None:
        if self._detector is None and self._detector_name is not None:
            self._detector = RTDetrPeople(self._detector_name, score=self._person_score, device=self._device)
        return self._detector


def _processor(image_size: Sequence[int]) -> Any:
    # The specific class is preferred, because the general one warns if torchvision is missing.
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = getattr(transformers, "VitPoseImageProcessorPil", None) or transformers.VitPoseImageProcessor
        return kind(size={"height": image_size[0], "width": image_size[1]})
