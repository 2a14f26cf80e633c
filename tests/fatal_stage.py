"""A stage that kills its process on one recording, as a lack of memory or a crash in a decoder would."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from actionprep.pipeline.index import STAGES
from actionprep.pipeline.stage import FrameBlock, FrameStage, Input, stage
from actionprep.settings import StageSettings, option


class FatalSettings(StageSettings):
    """Count frames, or die."""

    victim: str = option("", "The recording that is not survived.")
    deaths: str = option("", "File that notes each death; with `most` of them noted it is survived.")
    most: int = option(99, "Deaths before it is survived.")


@stage("fatal", version=1, settings=FatalSettings)
class Fatal(FrameStage):
    """Makes fatal/<recording>/<view>: index (T)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.item.create("index", shape=(), dtype="int64", axes=("time",), chunk=64)

    @classmethod
    def inputs(cls, settings: FatalSettings) -> tuple[Input, ...]:
        return (Input("masks"),)

    def push(self, block: FrameBlock, live: Mapping[str, Any]) -> None:
        if self.source.recording == self.settings.victim and block.index[0] > 0:
            deaths = Path(self.settings.deaths)
            if not deaths.exists() or len(deaths.read_text()) < self.settings.most:
                with open(deaths, "a") as file:
                    file.write("x")
                os.kill(os.getpid(), signal.SIGKILL)
        self.item.append("index", np.asarray(block.index))

    def finish(self, live: Mapping[str, Any]) -> None:
        self.item.attributes.update(num_frames=self.source.num_frames)


STAGES["fatal"] = Fatal
