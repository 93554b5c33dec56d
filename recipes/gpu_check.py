"""What only a GPU can show, in one go: the tests that need one, and the benchmark or a profile.

    python -m recipes.gpu_check COMMIT --out gpu.json
    python -m recipes.gpu_check COMMIT --out profile.json --parts profile
    python -m recipes.gpu_check COMMIT --out fp8.json --parts fp8

The result is one JSON file with the commit that it belongs to. It is written again after each part,
and each part has what is left of `--seconds`, so what was measured is never lost.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = (  # those that are skipped where there is no GPU
    "tests/fast/test_fast_paths.py::test_beams_and_hints_on_a_gpu_write_what_they_do_on_a_cpu",
    "tests/fast/test_fast_paths.py::test_a_gpu_writes_the_same_text_from_recorded_steps",
    "tests/fast/test_fast_paths.py::test_a_gpus_step_is_the_cpus",
    "tests/fast/test_fast_paths.py::test_a_training_step_never_waits_for_the_gpu[cuda]",
    "tests/fast/test_fast_paths.py::test_a_step_that_is_not_finite_is_left_out[cuda]",
    "tests/fast/test_fast_paths.py::test_packed_clips_are_heard_as_exactly_as_padded_ones",
    "tests/fast/test_fp8.py::test_a_gpus_products_are_the_imitated_ones",
    "tests/fast/test_fp8.py::test_a_gpu_trains_and_evaluates_in_8_bits",
    "tests/fast/test_gpu_step.py::test_the_kernel_is_pytorchs_attention",
    "tests/fast/test_gpu_step.py::test_a_gpus_logits_are_the_librarys",
    "tests/fast/test_gpu_step.py::test_one_clip_is_heard_the_same_when_it_is_recorded",
    "tests/fast/test_int8.py::test_a_gpu_writes_in_8_bits_what_a_cpu_writes",
    "tests/test_audio.py::test_the_gpu_agrees_with_the_cpu",
    "tests/test_model.py::test_a_gpu_writes_what_the_cpu_writes",
)
FULL = ["full", "--random-weights", "--compile"]


def commands(folder: Path) -> dict[str, tuple[list[str], Path | None]]:
    """The parts: what each runs, and the JSON file that it writes (else: on its output)."""
    profile = folder / "profile.json"
    benchmark = ["benchmark", "--model", *FULL, "--utterances", "1024", "--rounds", "1"]
    benchmark += ["--batch-seconds", "450", "--workers", "8", "--json"]
    return {
        "tests": (["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *TESTS], None),
        "profile": (["-m", "recipes.gpu_profile", *FULL, "--out", str(profile)], profile),
        "benchmark": (["-m", "tiny_asr.cli", *benchmark], None),
        "fp8": (["-m", "tiny_asr.cli", *benchmark, "--fp8"], None),  # training alone
    }


def run(command: list[str], file: Path | None, seconds: float) -> dict:
    """One part in a process of its own: its exit status, seconds, what it said and measured."""
    started, said = time.monotonic(), ""
    paths = os.pathsep.join([str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=CHECKOUT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        printed, said = process.communicate(timeout=max(1.0, seconds))
        status: int | str = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        printed, said = process.communicate()
        status = "took too long"
    result = {"status": status, "seconds": round(time.monotonic() - started, 1)}
    measured = file.read_text() if file is not None and file.exists() else printed
    try:
        result["measured"] = json.loads(measured)
    except ValueError:
        result["printed"] = printed[-6000:]
    return result | {"said": said[-6000:]}


def machine() -> dict:
    """The GPU, and the libraries that matter."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"gpu": gpu, "torch": torch.__version__, "transformers": transformers.__version__}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="Tests, profile and benchmark on a GPU.")
    parser.add_argument("commit", help="what is checked, as there may be no git here")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--parts", nargs="+", default=["tests", "benchmark"])
    parser.add_argument("--seconds", type=float, default=240.0, help="for all parts together")
    a = parser.parse_args()
    end = time.monotonic() + a.seconds
    result = {"commit": a.commit, **machine()}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    for name, (command, file) in commands(a.out.parent.resolve()).items():
        if name not in a.parts:
            continue
        if name == "tests" and find_spec("pytest") is None:
            result[name] = {"status": "left out: there is no pytest here"}
        else:
            result[name] = run(command, file, end - time.monotonic())
        part = result[name]
        print(f"{name}: status {part['status']}, {part.get('seconds', 0)} s", flush=True)
        print((part.get("printed", "") + part.get("said", ""))[-2500:], flush=True)
        a.out.write_text(json.dumps(result, indent=2))
    sys.exit(any(result[name]["status"] != 0 for name in a.parts))


if __name__ == "__main__":
    main()
