"""BentoML on the same model. ``bentoml serve bentoml_app:Small``; ``MODEL``, ``WORKERS``."""

import os

import bentoml
import numpy as np
import openvino as ov


@bentoml.service(workers=int(os.environ.get("WORKERS", "1")), metrics={"enabled": False})
class Small:
    def __init__(self) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": 1,
        }
        compiled = ov.Core().compile_model(os.environ["MODEL"], "CPU", settings)
        self.request = compiled.create_infer_request()

    @bentoml.api
    def predict(self, x: list[float]) -> list[float]:
        row = np.asarray([x], np.float32)
        return self.request.infer({0: row}, share_inputs=True)[0].ravel().tolist()
