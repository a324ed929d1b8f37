"""MLServer on the same model: a custom runtime, Open Inference Protocol V2 in JSON."""

import os

import openvino as ov
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Small(MLModel):
    async def load(self) -> bool:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": 1,
        }
        compiled = ov.Core().compile_model(os.environ["MODEL"], "CPU", settings)
        self.request = compiled.create_infer_request()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        y = self.request.infer({0: x}, share_inputs=True)[0]
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("probabilities", y)]
        )
