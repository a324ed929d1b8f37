"""OpenVINO IR: read, run once, and stored anew as OpenVINO writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import openvino

from openmaas.errors import ArtifactRefused
from openmaas.registry.importers import language_folder, network_check
from openmaas.registry.manifest import Description, Verification

MAX_XML = 512 << 20


def convert(source: Path, out: Path, say: Callable[[str], None]) -> Description:
    """
    Args:
        source: the ``.xml`` of an ordinary network, or the folder of a language model.

    Raises:
        ArtifactRefused: damaged, or with shapes out of bounds.
        ConversionFailed: OpenVINO cannot read or run it.
    """
    if source.is_dir():
        say("checking the language model")
        return language_folder.store(source, out)
    if source.stat().st_size > MAX_XML:
        raise ArtifactRefused("The IR's .xml is too large.")
    say("reading OpenVINO IR")
    model = network_check.read_model(source)
    network_check.name_ports(model)
    inputs, outputs = map(network_check.ports_of, (model.inputs, model.outputs))
    target = out / "openvino_model.xml"
    # Written anew: what else the two files held besides the network does not come along.
    openvino.save_model(model, str(target), compress_to_fp16=False)
    say("comparing the stored network with the original")
    original = network_check.compiled(source)
    verification: Verification = network_check.compare(
        target,
        inputs,
        lambda arrays: list(original(list(arrays.values())).values()),
        "the IR as it came",
    )
    return Description(
        format="openvino-ir",
        task="predict",
        architecture="openvino",
        inputs=inputs,
        outputs=outputs,
        precision="f32",
        verification=verification,
        converted_by={"openvino": openvino.__version__},
    )
