"""Importing the package is instant, and its lazy names are all there."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

import tiny_asr

HEAVY = ("torch", "torchaudio", "transformers", "datasets", "matplotlib", "numpy")


def loaded_after(code: str) -> list[str]:
    """Which heavy libraries a fresh interpreter has loaded after running `code`."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    script = f"{code}\n{report}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_loads_no_heavy_library():
    assert loaded_after("import tiny_asr; tiny_asr.__version__; dir(tiny_asr)") == []


def test_using_a_name_loads_what_it_needs():
    assert "torch" in loaded_after("from tiny_asr import AudioProjector")


@pytest.mark.parametrize("name", [name for name in tiny_asr.__all__ if name != "__version__"])
def test_every_listed_name_is_the_one_its_module_defines(name):
    thing = getattr(tiny_asr, name)
    assert thing is getattr(import_module(thing.__module__), name)
    assert thing.__doc__


def test_the_names_of_the_design_are_listed():
    expected = {
        "ASRConfig",
        "ASRModel",
        "ASRPipeline",
        "ASRProcessor",
        "AudioEncoder",
        "AudioProjector",
        "TextDecoder",
        "load_audio",
        "log_mel",
        "trace_clip",
    }
    assert expected <= set(tiny_asr.__all__)
    assert set(tiny_asr.__all__) <= set(dir(tiny_asr))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'tiny_asr' has no attribute 'ASRModell'"):
        tiny_asr.ASRModell  # noqa: B018
    with pytest.raises(ImportError, match="ASRModell"):
        from tiny_asr import ASRModell  # noqa: F401
