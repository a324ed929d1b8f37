"""What one writes by hand: FastAPI and OpenVINO in one process. ``MODEL`` is an ONNX file.

``uvicorn fastapi_app:app --workers 2``. Speaks Open Inference Protocol V2's JSON for one input.
"""

import os
from typing import Any

import numpy as np
import openvino as ov
from fastapi import FastAPI
from pydantic import BaseModel

# One thread and no pinning: its best setting here, two workers share two cores.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
compiled = ov.Core().compile_model(
    os.environ["MODEL"], "CPU", {**SETTINGS, "INFERENCE_NUM_THREADS": 1}
)
request = compiled.create_infer_request()
app = FastAPI()


class Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Infer(BaseModel):
    inputs: list[Input]


@app.get("/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/infer")
async def infer(body: Infer) -> dict[str, Any]:
    x = np.asarray(body.inputs[0].data, np.float32).reshape(body.inputs[0].shape)
    y = request.infer({0: x}, share_inputs=True)[0]
    output = {"name": "probabilities", "datatype": "FP32", "shape": list(y.shape)}
    return {"model_name": "small", "outputs": [{**output, "data": y.ravel().tolist()}]}
