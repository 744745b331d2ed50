"""For `make test-triton`: lays out Triton's server from the wheel nvidia-pytriton, and a model repository for it.

Run in the virtual environment that has the wheel, with a folder: `tritonserver` there starts the server with its Python
backend, and `models` has two repositories with the same model (`triton_model/model.py`): the one in `ids` tells token
ids, the one in `text` only text, as Triton's vLLM backend does.

The stub that runs Python models was built for numpy 1: with numpy 2 it reads every string wrongly (each byte of its
length is the first one). It does not heed PYTHONPATH, but takes the first `python3` of PATH for its own, and so finds
the virtual environment, which has numpy 1.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
SCRIPT = """#!/bin/sh
export PATH={python}:$PATH LD_LIBRARY_PATH={libraries}
exec {server} --backend-directory={backends} "$@"
"""
OPTIONAL_INPUTS = {
    **{"stream": "BOOL", "sampling_parameters": "STRING", "exclude_input_in_output": "BOOL"},
    **{"return_finish_reason": "BOOL", "return_num_input_tokens": "BOOL", "return_num_output_tokens": "BOOL"},
}
OUTPUTS = {
    "text_output": "STRING",
    "finish_reason": "STRING",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}


def lay_out(folder: Path) -> None:
    site = Path(sysconfig.get_path("purelib"))
    wheel = site / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy2(wheel / "python_backend_stubs" / VERSION / "triton_python_backend_stub", backend)
    script = folder / "tritonserver"
    libraries = f"{site / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    python = Path(sysconfig.get_path("scripts"))
    server = wheel / "bin" / "tritonserver"
    script.write_text(SCRIPT.format(python=python, libraries=libraries, server=server, backends=backend.parent))
    script.chmod(0o755)


def write_models(folder: Path) -> None:
    program = Path(__file__).with_name("triton_model") / "model.py"
    for kind, with_ids in (("ids", True), ("text", False)):
        model = folder / kind / "tiny"
        (model / "1").mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, model / "1" / "model.py")
        (model / "1" / "model.json").write_text('{"max_model_len": 8192}\n')
        (model / "config.pbtxt").write_text(_config(with_ids))


def _config(with_ids: bool) -> str:
    more = {"input_ids": "INT32"} if with_ids else {}
    inputs = [_tensor("input", "text_input", "STRING", optional=with_ids)]
    inputs += [_tensor("input", name, kind, optional=True) for name, kind in {**OPTIONAL_INPUTS, **more}.items()]
    outputs = {**OUTPUTS, **({"output_ids": "INT32", "prompt_ids": "INT32"} if with_ids else {})}
    tensors = inputs + [_tensor("output", name, kind) for name, kind in outputs.items()]
    head = 'backend: "python"\nmax_batch_size: 0\nmodel_transaction_policy { decoupled: true }\n'
    return head + "".join(tensors) + "instance_group [ { kind: KIND_CPU, count: 1 } ]\n"


def _tensor(field: str, name: str, kind: str, optional: bool = False) -> str:
    return f'{field} [ {{ name: "{name}", data_type: TYPE_{kind}, dims: [ -1 ]{", optional: true" * optional} }} ]\n'


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    shutil.rmtree(target, ignore_errors=True)
    write_models(target / "models")
    lay_out(target)
