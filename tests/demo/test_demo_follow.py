"""What the demo's page shows of a clip, without the page."""

import re
import subprocess
import sys
from html import unescape
from itertools import pairwise

import pytest
import soundfile
import torch
from fixtures_models import noise, talkative

from tiny_asr import ASRModel, load_audio, sample_clip
from tiny_asr.demo import follow as demo
from tiny_asr.figures.trace import trace_clip
from tiny_asr.shapes import CONTRACT


@pytest.fixture(scope="module")
def tiny():
    return ASRModel.from_pretrained("tiny")


def numbers(html: str) -> dict[str, str]:
    """Stage -> its shape in numbers, from the table on the page."""
    cells = [re.findall("<td.*?>(.*?)</td>", row) for row in html.split("<tr>")]
    return {row[0]: row[2] for row in cells if row}


@pytest.fixture(scope="module")
def shown(tiny):
    return list(demo.follow(tiny, str(sample_clip())))


def test_the_text_grows_to_the_whole_transcript(tiny, shown):
    texts = [step.text for step in shown]
    assert len(set(texts)) > 5
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert texts[-1] == tiny.transcribe(sample_clip())


def test_the_shapes_are_there_with_the_first_word(tiny, shown):
    first = next(step for step in shown if step.text)
    assert first.text != shown[-1].text
    expected = {row["stage"]: row["shape"] for row in trace_clip(tiny, sample_clip()).rows()}
    assert numbers(shown[-1].shapes) == expected
    assert numbers(first.shapes) == expected | {"token_ids": "..."}
    assert set(numbers(shown[0].shapes).values()) == {"..."}, "the shapes of the clip before"


def test_every_stage_but_that_of_training_is_listed():
    assert list(numbers(demo.shapes())) == [name for name in CONTRACT if name != "text_logits"]


def test_three_pictures_come_last_each_with_words(shown):
    assert not any(step.pictures for step in shown[:-1])
    alts = re.findall('alt="(.*?)"', shown[-1].pictures)
    assert [alt.split(":")[0] for alt in alts] == [
        "Log-mel spectrogram",
        "Encoder output",
        "Projector output",
    ]
    assert "150 steps of 20 ms" in alts[1] and "30 steps of 100 ms" in alts[2]


def test_it_says_how_far_it_is(shown):
    assert shown[0].status == "listening to 3.0 s of sound ..."
    assert shown[1].status == "writing ..."
    assert re.fullmatch(r"3\.0 s of sound, written in \d+\.\d s\.", shown[-1].status)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (None, "there is no clip yet"),
        ("text.wav", "text.wav cannot be decoded"),
        ("empty.wav", "empty.wav is empty"),
        ("silence.wav", "only silence came"),
    ],
)
def test_bad_input_is_explained_and_nothing_is_invented(tmp_path, name, complaint):
    (tmp_path / "text.wav").write_bytes(b"<b>no sound</b>")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "silence.wav", torch.zeros(16_000).numpy(), 16_000)
    (only,) = demo.follow(talkative(), name and str(tmp_path / name))
    assert complaint in unescape(only.status)
    assert str(tmp_path) not in only.status
    assert (only.text, only.pictures) == ("", "")
    assert set(numbers(only.shapes).values()) == {"..."}


def test_a_file_name_cannot_put_html_on_the_page(tmp_path):
    file = tmp_path / "<img src=x>.wav"
    file.write_bytes(b"no sound")
    (only,) = demo.follow(talkative(), str(file))
    assert "<img" not in only.status and "&lt;img" in only.status


def test_a_clip_without_words_says_so(tiny, tmp_path):
    file = tmp_path / "noise.wav"
    torch.manual_seed(0)
    soundfile.write(file, (0.01 * torch.randn(48_000)).numpy(), 16_000)
    *_, last = demo.follow(tiny, str(file))
    assert last.text == "" and "No words were heard" in last.status
    assert numbers(last.shapes)["audio_embeddings"].startswith("1 x 30 x ")


def test_a_long_clip_is_written_whole_without_shapes(tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, noise(33).numpy(), 16_000)
    *_, last = demo.follow(talkative(), str(file))
    assert last.text.strip() == talkative().transcribe(file)
    assert last.status.startswith("33.0 s of sound")
    assert "at most 30 s" in last.status and "split at silences" in last.status
    assert set(numbers(last.shapes).values()) == {"..."} and last.pictures == ""


def test_the_bundled_clips_can_be_read_and_their_names_say_what_is_spoken():
    clips = demo.bundled_clips()
    assert len(clips) == 1 + len(demo.VOICES)  # of a checkout, which has the speech data
    for source in clips.values():
        assert 1 < len(load_audio(source)) / 16_000 < 30
    assert [name.split(": ")[0] for name in clips][1:] == list(demo.VOICES)


def test_without_the_speech_data_the_sample_is_left(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("TINY_ASR_DATA", str(tmp_path))
    assert len(demo.bundled_clips()) == 1


def test_without_gradio_the_command_says_what_to_install():
    program = (
        "import sys; sys.modules['gradio'] = None\n"
        "from tiny_asr.cli.main import main; sys.argv = ['tiny-asr', 'demo', '--no-open']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "pip install '.[demo]'" in line and "make demo" in line


def test_with_beams_and_hints_the_text_is_the_transcript(tmp_path):
    file = tmp_path / "clip.wav"
    soundfile.write(file, noise(1.5).numpy(), 16_000)
    steps = list(demo.follow(talkative(), str(file), beams=3, hints=["the cat"]))
    text = talkative().transcribe(file, beams=3, hints=["the cat"])
    assert steps[-1].text == text != talkative().transcribe(file)
    assert numbers(steps[1].shapes) == numbers(steps[-1].shapes) | {"token_ids": "..."}
