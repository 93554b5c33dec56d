"""Kokoro's weights, from its int8 ONNX file to the names and shapes of model.py.

    python -m recipes.kokoro.weights

reads `kokoro-82m-int8.onnx` in the model's folder (--kokoro, TINY_ASR_KOKORO, or
runs/prepare/kokoro/model), and writes `kokoro-82m.safetensors` beside it, dequantised, 330 MB.
`speak` does that where the file is missing. Needs `pip install '.[recipes]'`.

In the ONNX file a weight has the name of its parameter, or only the node that uses it has one that
tells whose weight it is.
"""

import argparse
import os
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.kokoro.model import Kokoro
from recipes.text import WORK

MODEL = Path(os.environ.get("TINY_ASR_KOKORO", WORK / "kokoro" / "model"))
ONNX, WEIGHTS, VOICES = "kokoro-82m-int8.onnx", "kokoro-82m.safetensors", "voices.bin"
WHERE = (
    "expected kokoro-82m-int8.onnx and voices.bin there (recipes/README.md says where they come "
    "from); name the folder with --kokoro or TINY_ASR_KOKORO"
)
# From the path of a node, or the name of a weight, to a name in model.py.
RENAMED = (
    (r"_quant$", ""),
    (r"/(Conv|ConvTranspose|LSTM|(Gemm_)?MatMul(_\d+)?)$", ""),
    (r"^/", ""),
    (r"/", "."),
    (r"^encoder\.", ""),
    (r"^decoder\.decoder\.", "decoder."),
    (r"(asr_res)\.\1\.0|asr_res\.0", "asr_res"),  # layers of a list, named twice in a path
    (r"cnn\.(\d)\.cnn\.\d\.0", r"cnn.\1.0"),
    (r"\.linear_layer", ""),
    (r"^decoder\.generator\.m_source", "source"),
    (r"^(F0|N|shared)(?=[._]|$)", r"predictor.\1"),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)
# PL-BERT's layer is used twelve times; at the second its nodes are called `ffn_1`, `query_1`, ...
REPEATED = re.compile(r"(?<=[a-z])_\d+$")


def renamed(name: str) -> str:
    """A path of a node, or a name of a weight, in model.py's names."""
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return REPEATED.sub("", name)


def gates(matrix: np.ndarray) -> np.ndarray:
    """Rows of an LSTM's gates in ONNX's order (i, o, f, c), in PyTorch's (i, f, c, o)."""
    i, o, f, c = np.split(matrix, 4)
    return np.concatenate([i, f, c, o])


def lstm(name: str, given: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The two directions of an LSTM from the inputs of its node: weights int8, biases, scales."""
    inputs, states, biases, input_scale, state_scale = given
    weights = {}
    for way, end in enumerate(("", "_reverse")):
        from_input, from_state = np.split(biases[way], 2)
        weights |= {
            f"{name}.weight_ih_l0{end}": gates(inputs[way].T * input_scale[way]),
            f"{name}.weight_hh_l0{end}": gates(states[way].T * state_scale[way]),
            f"{name}.bias_ih_l0{end}": gates(from_input),
            f"{name}.bias_hh_l0{end}": gates(from_state),
        }
    return weights


def dequantised(path: Path) -> dict[str, Tensor]:
    """The weights of model.py from the ONNX file, float32.

    Raises ValueError if the file is another network's, or the package onnx is missing.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ValueError(f"{error}; pip install '.[recipes]' in the clone") from error
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def scaled(name: str, zero: np.ndarray) -> np.ndarray:
        """(whole numbers - those that stand for 0) x scale."""
        whole = stored[name].astype(np.float32) - zero.astype(np.float32)
        return whole * stored[name.removesuffix("_quantized") + "_scale"]

    found = {}
    for node in graph.node:
        name = renamed(node.name)
        weight = f"{name}.weight"
        if node.op_type == "DynamicQuantizeLSTM":
            found |= lstm(name, [stored[node.input[place]] for place in (1, 2, 3, 8, 10)])
        elif node.op_type == "ConvInteger":
            found[weight] = scaled(node.input[1], stored[node.input[3]])
        elif node.op_type == "MatMulInteger" and node.input[1] in stored:
            found[weight] = scaled(node.input[1], stored[node.input[3]]).T
        elif node.op_type == "DequantizeLinear":  # of rows of an embedding
            embedding = node.input[1].removesuffix("_scale")
            whole = f"{embedding}_quantized"
            found[renamed(embedding)] = scaled(whole, stored[node.input[2]])
        elif node.op_type in ("Conv", "ConvTranspose"):
            found[weight] = stored[node.input[1]]
    for name in stored:
        if name == "onnx::MatMul_6993":  # of nine harmonics, the only one without a named node
            found["source.l_linear.weight"] = stored[name].T
        elif stored[name].dtype == np.float32:
            found.setdefault(renamed(name), stored[name])

    weights, missing = {}, []
    for name, parameter in Kokoro().named_parameters():
        if name in found and found[name].size == parameter.numel():
            weights[name] = torch.tensor(found[name]).float().reshape(parameter.shape).contiguous()
        else:
            missing.append(name)
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} weights ({', '.join(missing[:4])}, ...); expected the "
            "export that recipes/README.md names"
        )
    return weights


def load(folder: Path) -> Kokoro:
    """The network with its weights, on the CPU in float32. Raises ValueError as `convert` does."""
    model = Kokoro()
    model.load_state_dict(load_file(convert(folder)))
    return model


def convert(folder: Path) -> Path:
    """The file of weights in the model's folder, made there from the ONNX file if it is missing.

    Raises ValueError if there is neither, and as `dequantised` does.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        if not (folder / ONNX).is_file():
            raise ValueError(f"no voice model in {folder}; {WHERE}")
        part = path.with_suffix(f".{os.getpid()}.part")
        save_file(dequantised(folder / ONNX), part, {"source": "Kokoro-82M v1.0, Apache-2.0"})
        os.replace(part, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Dequantise Kokoro's weights.")
    parser.add_argument("--kokoro", type=Path, default=MODEL, help="the model's folder")
    arguments = parser.parse_args()
    try:
        path = convert(arguments.kokoro)
    except ValueError as error:
        parser.error(str(error))
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
