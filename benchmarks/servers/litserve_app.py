"""LitServe on the same model. Environment: ``MODEL``, ``PORT``, ``BATCH``, ``WORKERS``."""

import os
from typing import Any

import litserve as ls
import numpy as np
import openvino as ov

BATCH = int(os.environ.get("BATCH", "1"))


class Small(ls.LitAPI):
    def setup(self, device: str) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": 1,
        }
        compiled = ov.Core().compile_model(os.environ["MODEL"], "CPU", settings)
        self.request = compiled.create_infer_request()

    def decode_request(self, request: dict[str, Any]) -> np.ndarray:
        return np.asarray(request["x"], np.float32)

    def predict(self, x: Any) -> Any:
        rows = np.stack(x) if isinstance(x, list) else np.atleast_2d(x)
        return self.request.infer({0: rows}, share_inputs=True)[0]

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"probabilities": output.ravel().tolist()}


if __name__ == "__main__":
    api = Small(max_batch_size=BATCH, batch_timeout=0.0)
    server = ls.LitServer(
        api,
        accelerator="cpu",
        devices=1,
        workers_per_device=int(os.environ.get("WORKERS", "1")),
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=int(os.environ.get("API_SERVERS", "1")),
        generate_client_file=False,
        log_level="warning",
    )
