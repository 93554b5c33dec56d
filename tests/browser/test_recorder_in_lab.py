"""The recorder in JupyterLab: a voice from the browser's microphone arrives in the notebook."""

import io
import re
from collections.abc import Iterator

import nbformat
import pytest
import soundfile
import torch
from lab import Lab, Server
from playwright.sync_api import Page, Playwright, expect
from voice import SPEAKING_SECONDS, speaking, words_heard

from tiny_asr import load_audio, sample_clip

RECORD = "from tiny_asr.course.recorder import VoiceRecorder\nvoice = VoiceRecorder()\nvoice"
USE = """import torch
from tiny_asr import ASRModel
torch.save(voice.waveform, "waveform.pt")
if voice.waveform is None:
    print("none: no clip yet")
else:
    print("heard:", ASRModel.from_pretrained("tiny").transcribe(voice.waveform, 16_000))"""


@pytest.fixture(scope="module")
def page(playwright: Playwright, server: Server) -> Iterator[Page]:
    """A notebook with a recorder that waits for a voice, and a cell that saves what it has."""
    cells = [nbformat.v4.new_code_cell(source) for source in (RECORD, USE)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, server.folder / "notebooks" / "voice.ipynb")
    with speaking(playwright, server.folder) as browser:
        lab = Lab(browser.new_page(), server, "voice.ipynb")
        lab.run_all(60)
        assert lab.state()["errors"] == []
        yield lab.page
    server.stop_kernels()


def used(page: Page, server: Server) -> tuple[torch.Tensor | None, str]:
    """Run the second cell: the waveform that it finds in the recorder, and what it prints of it."""
    saved = server.folder / "notebooks" / "waveform.pt"
    saved.unlink()
    page.locator(".jp-CodeCell").nth(1).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    printed = page.get_by_text(re.compile(r"^(heard|none):"))
    expect(printed).to_have_count(1, timeout=30_000)
    return torch.load(saved), printed.inner_text()


def test_a_recording_arrives_and_is_understood(page, server, shots):
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("meter")).to_be_visible()
    page.wait_for_timeout(SPEAKING_SECONDS * 1000)
    page.screenshot(path=shots / "recorder_recording.png")
    page.get_by_role("button", name="Stop").click()
    status = page.locator(".tiny-asr-recorder").get_by_role("status")
    expect(status).to_contain_text("s from the microphone. Now run the cells below.")
    expect(page.get_by_role("meter")).to_be_hidden()
    waveform, printed = used(page, server)
    page.screenshot(path=shots / "recorder_recorded.png")
    assert waveform.dtype == torch.float32
    assert SPEAKING_SECONDS - 0.5 < len(waveform) / 16_000 < SPEAKING_SECONDS + 2
    assert words_heard(printed) >= 5, printed


def test_a_file_arrives_as_it_is(page, server):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files(sample_clip())
    status = page.locator(".tiny-asr-recorder").get_by_role("status")
    expect(status).to_have_text("3.0 s from sample.flac. Now run the cells below.")
    player = page.locator(".tiny-asr-recorder audio")
    expect(player).to_be_visible()  # one can listen to it
    page.wait_for_function("audio => audio.duration > 2.9", arg=player.element_handle())
    waveform, printed = used(page, server)
    torch.testing.assert_close(waveform, load_audio(sample_clip()), atol=1e-4, rtol=0)
    assert words_heard(printed) >= 8, printed


def test_what_is_no_clip_is_refused_with_a_reason(page, server):
    files = {
        "text.wav": (b"not a sound", "cannot be read; expected sound"),
        "long.wav": (wav(31), "lasts 31.0 s; expected at most 30 s"),
        "muted.wav": (wav(1, 0.0001), "only silence came"),
    }
    for name, (data, complaint) in files.items():
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose a file").click()
        chooser.value.set_files({"name": name, "mimeType": "audio/wav", "buffer": data})
        status = page.locator(".tiny-asr-recorder").get_by_role("status")
        expect(status).to_contain_text(f"{name}")
        expect(status).to_contain_text(complaint)
    waveform, _ = used(page, server)
    assert waveform is None, "an older clip would pass for the silent one"


def wav(seconds: float, loudness: float = 0.1) -> bytes:
    """A file with a tone in it."""
    tone = loudness * torch.sin(torch.arange(round(seconds * 16_000)) / 5)
    file = io.BytesIO()
    soundfile.write(file, tone.numpy(), 16_000, format="WAV")
    return file.getvalue()
