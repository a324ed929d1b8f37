"""One importer a format: ``convert(source, out, say)`` → Description.

They run only in the process of ``openmaas.registry.convert``, so each imports what it needs.
"""

import sys

# OpenVINO tells its maker of every import, unless this package of its is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
