"""Files as people have them: lengths that headers get wrong, sound that can't be right, damage.

Each table says what comes and what becomes of it. `WHOLE` is read to the end without a word; what
ends early or can't be right is read with a warning that names the file, or refused in one line.
"""

import io
import json
import re
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from tiny_asr import audio, load_audio, sample_clip
from tiny_asr.audio import read_audio
from tiny_asr.data.utterance import BadClip, Utterance
from tiny_asr.files.reading import BLOCK, AudioError

RATE = 16_000
SECONDS = 4.0


def voice(seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """Something whose place in time shows: a tone that rises, louder and quieter by turns."""
    time_axis = np.arange(round(seconds * rate)) / rate
    loudness = 0.3 + 0.1 * np.sin(2 * np.pi * 3 * time_axis)
    return loudness * np.sin(2 * np.pi * (200 + 100 * time_axis) * time_axis)


def encoded(kind: str, seconds: float = SECONDS, rate: int = RATE, channels: int = 1) -> bytes:
    """`WAV/PCM_16`, say: the voice in this container and coding."""
    container, coding = kind.split("/")
    samples = np.tile(voice(seconds, rate)[:, None], 1 if coding == "GSM610" else channels)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=coding)
    return file.getvalue()


KINDS = [
    *("WAV/PCM_16", "WAV/PCM_U8", "WAV/FLOAT", "WAV/ULAW", "WAV/GSM610", "WAV/IMA_ADPCM"),
    *("WAVEX/PCM_24", "W64/PCM_16", "RF64/PCM_16", "AIFF/PCM_16", "AIFF/FLOAT", "AU/PCM_16"),
    *("CAF/PCM_16", "FLAC/PCM_16", "OGG/VORBIS", "OGG/OPUS", "MP3/MPEG_LAYER_III"),
]


def patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Other bytes at so many after a mark."""
    at = data.index(mark) + offset
    return data[:at] + value + data[at + len(value) :]


def wav(size: int, riff: int | None = None, kind: str = "WAV/PCM_16") -> bytes:
    data = patched(encoded(kind), b"data", 4, struct.pack("<I", size))
    return data if riff is None else patched(data, b"RIFF", 4, struct.pack("<I", riff))


def flac_of_unknown_length() -> bytes:
    """As `flac -` writes it to a pipe: 36 bits of 0 for the samples in all."""
    data = bytearray(encoded("FLAC/PCM_16"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def without_xing(data: bytes) -> bytes:
    """An MP3 as some programs write it: the first frame, which is the header, is missing."""
    first = next(m.start() for m in re.finditer(rb"\xff[\xf2\xf3\xfb]", data))
    following = re.compile(re.escape(data[first : first + 2])).search(data, first + 40)
    return data[following.start() :]


def variable_rate_mp3() -> bytes:
    """Near silence, then noise: the first frames say nothing of the size of the others."""
    samples = np.concatenate(
        [np.zeros(2 * RATE), voice(1.0), 0.3 * np.random.default_rng(0).standard_normal(RATE)]
    )
    file = io.BytesIO()
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.5}
    soundfile.write(file, samples, RATE, format="MP3", **options)
    return without_xing(file.getvalue())


def as_file(samples: np.ndarray, kind: str = "WAV/FLOAT") -> bytes:
    container, coding = kind.split("/")
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=container, subtype=coding)
    return file.getvalue()


def half(kind: str) -> bytes:
    data = encoded(kind)
    return data[: len(data) // 2 + 1]


WHOLE = {
    **{f"{kind}, as it should be": (lambda kind=kind: encoded(kind)) for kind in KINDS},
    "WAV of size 0": lambda: wav(0),
    "WAV of size 0, RIFF too": lambda: wav(0, 0),
    "WAV of size 0, silence first": lambda: patched(
        as_file(np.concatenate([np.zeros(RATE), voice(3.0)])), b"data", 4, bytes(4)
    ),
    "WAV of size 0xFFFFFFFF": lambda: wav(0xFFFFFFFF, 0xFFFFFFFF),
    "WAV of size 0x7FFFFFFF": lambda: wav(0x7FFFFFFF, 0x7FFFFFFF),
    "WAV of size 0x80000000": lambda: wav(0x80000000),
    "WAV as sox pipes it": lambda: wav(0x7FFFFFFF - 36, 0x7FFFFFFF),
    "WAV that states 100 bytes": lambda: wav(100),
    "WAV/FLOAT of size 0xFFFFFFFF": lambda: wav(0xFFFFFFFF, None, "WAV/FLOAT"),
    "GSM in WAV of size 0xFFFFFFFF": lambda: wav(0xFFFFFFFF, None, "WAV/GSM610"),
    "GSM in WAV of size 0": lambda: wav(0, None, "WAV/GSM610"),
    "AU of size 0": lambda: patched(encoded("AU/PCM_16"), b".snd", 8, bytes(4)),
    "AU of size 0xFFFFFFFF": lambda: patched(encoded("AU/PCM_16"), b".snd", 8, b"\xff" * 4),
    "AIFF of size 0": lambda: patched(encoded("AIFF/PCM_16"), b"SSND", 4, bytes(4)),
    "AIFF of size 0xFFFFFFFF": lambda: patched(encoded("AIFF/PCM_16"), b"SSND", 4, b"\xff" * 4),
    "AIFF of 0 frames": lambda: patched(encoded("AIFF/PCM_16"), b"COMM", 10, bytes(4)),
    "FLAC of unknown length": flac_of_unknown_length,
    "MP3 of variable rate without a Xing header": variable_rate_mp3,
    "MP3 after a tag with a picture": lambda: (
        b"ID3\x04\0\0\0\0\x1f\x76" + bytes(4086) + encoded("MP3/MPEG_LAYER_III")
    ),
}
JOINED = {
    "two MP3s": lambda: encoded("MP3/MPEG_LAYER_III") * 2,
    "three MP3s": lambda: encoded("MP3/MPEG_LAYER_III") * 3,
    "an MP3 and one without a header": lambda: (
        encoded("MP3/MPEG_LAYER_III") + without_xing(encoded("MP3/MPEG_LAYER_III"))
    ),
    "two MP3s without a header": lambda: without_xing(encoded("MP3/MPEG_LAYER_III")) * 2,
    "two Ogg Opus": lambda: encoded("OGG/OPUS") * 2,
    "three Ogg Vorbis": lambda: encoded("OGG/VORBIS") * 3,
    "two FLACs": lambda: encoded("FLAC/PCM_16") * 2,
}
# (bytes, what load_audio must say): read as far as it goes, or refused.
TORN = {
    **{f"half of {kind}": (lambda kind=kind: half(kind)) for kind in KINDS},
    "GSM in WAV, 3 of 4 seconds": lambda: encoded("WAV/GSM610")[: 13_060 * 3 // 4],
    "an Ogg that ends with a page": lambda: (data := encoded("OGG/OPUS"))[: data.rindex(b"OggS")],
    "half an MP3 of constant rate": lambda: half("MP3/MPEG_LAYER_III"),
    "two FLACs, the second torn": lambda: encoded("FLAC/PCM_16") + half("FLAC/PCM_16"),
}
LEFT = voice().astype(np.float32)
SPIKE = np.where(np.arange(len(LEFT)) == 99, 1000.0, LEFT)
QUIET = 1e-3 * np.random.default_rng(0).standard_normal(len(LEFT))
# (bytes or array, the reason under which training counts it, what the warning says)
IMPOSSIBLE = {
    "channels that cancel": (
        lambda: as_file(np.stack([LEFT, -LEFT], 1)),
        "channels cancel",
        "Use one channel alone",
    ),
    "channels that nearly cancel": (
        lambda: as_file(np.stack([LEFT, -LEFT + QUIET], 1), "FLAC/PCM_16"),
        "channels cancel",
        "Use one channel",
    ),
    "channels of an array that cancel": (
        lambda: np.stack([LEFT, -LEFT]),
        "channels cancel",
        "Use one channel alone",
    ),
    "digital silence": (lambda: as_file(0 * LEFT), "digital silence", "all 64000 samples are 0"),
    "digital silence in FLAC": (
        lambda: as_file(0 * LEFT, "FLAC/PCM_16"),
        "digital silence",
        "muted",
    ),
    "digital silence in an array": (lambda: 0 * LEFT, "digital silence", "muted"),
    "floats on the scale of int16": (
        lambda: as_file(LEFT * 32768),
        "wrong scale",
        "13.*expected -1 to 1.*Divide by 32768",
    ),
    "an array on the scale of int16": (lambda: LEFT * 32768, "wrong scale", "Divide by 32768"),
    "one spike of 1000": (lambda: as_file(SPIKE), "a spike", "peak of 1000; .*all but 1 sample"),
    "one spike in an array": (lambda: SPIKE, "a spike", "peak of 1000"),
}
FINE = {
    "one channel silent": lambda: as_file(np.stack([LEFT, 0 * LEFT], 1)),
    "channels unlike": lambda: as_file(np.stack([LEFT, LEFT[::-1]], 1)),
    "a click at full scale": lambda: as_file(np.where(SPIKE > 1, 1.0, LEFT / 100)),
    "floats to 3": lambda: as_file(8 * LEFT),
    "very quiet": lambda: as_file(LEFT / 10_000),
    "all but silent": lambda: as_file(np.where(SPIKE > 1, 1 / 32768, 0.0), "WAV/PCM_16"),
}


def doubts(source, **options) -> list[str]:
    return [doubt.reason for doubt in read_audio(source, **options)[1]]


@pytest.mark.parametrize("name", WHOLE)
def test_is_read_to_its_end_without_a_word(name, tmp_path):
    data = WHOLE[name]()
    path = tmp_path / "clip"
    path.write_bytes(data)
    for source in (data, path):
        waveform, said = read_audio(source)
        assert not said
        assert len(waveform) / RATE == pytest.approx(SECONDS, abs=0.11)
        assert waveform[-RATE // 2 : -RATE // 4].abs().max() > 0.15, "and its end holds sound"


def test_gsm_is_read_as_speech():
    heard = load_audio(encoded("WAV/GSM610"))[: len(LEFT)]
    assert np.corrcoef(heard, LEFT[: len(heard)])[0, 1] > 0.9


@pytest.mark.parametrize("name", JOINED)
def test_of_files_that_were_joined_all_is_read(name):
    count = 3 if name.startswith("three") else 2
    waveform, said = read_audio(JOINED[name]())
    assert not said and len(waveform) / RATE == pytest.approx(count * SECONDS, abs=0.15 * count)
    assert waveform[-RATE // 2 : -RATE // 4].abs().max() > 0.15


def test_files_of_two_rates_joined_are_refused():
    with pytest.raises(AudioError, match=r"2 sounds joined.*\(8000, 1\).*cut it apart"):
        load_audio(encoded("FLAC/PCM_16") + encoded("FLAC/PCM_16", rate=8_000))


@pytest.mark.parametrize("name", TORN)
def test_a_torn_file_is_named(name, tmp_path):
    path = tmp_path / "torn.sound"
    path.write_bytes(TORN[name]())
    if name in ("half of CAF/PCM_16", "half of OGG/VORBIS"):  # the latter holds headers alone
        with pytest.raises(AudioError, match=r"^[^\n]*torn\.sound cannot be decoded[^\n]*$"):
            load_audio(path)
        return
    with pytest.warns(UserWarning, match=r"torn\.sound ends .*torn\?") as said:
        waveform = load_audio(path)
    assert len(said) == 1 and doubts(path) == ["torn file"]
    assert 0.2 * SECONDS < len(waveform) / RATE < 1.6 * SECONDS
    assert waveform[-RATE // 2 : -RATE // 4].abs().max() > 0.15, "read as far as it goes"


@pytest.mark.parametrize(("kind", "header"), [("WAV/PCM_16", 44), ("AU/PCM_16", 24)])
def test_a_header_alone_is_empty_audio(kind, header):
    data = encoded(kind)[:header]
    with pytest.raises(AudioError, match=r"is empty: 0 samples; expected some sound") as caught:
        read_audio(data)
    assert caught.value.reason == "empty audio"
    with pytest.raises(BadClip, match=r"clip 'odd'.*empty") as caught:
        Utterance("odd", "hello", SECONDS, {}, data).load()
    assert caught.value.reason == "empty audio"


def test_how_much_is_missing_is_said():
    for kind in ("WAV/PCM_16", "AIFF/PCM_16", "AU/PCM_16", "W64/PCM_16", "RF64/PCM_16"):
        with pytest.warns(UserWarning, match=r"ends 2\.0\d s before its header says"):
            load_audio(half(kind))


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_sound_that_can_not_be_right(name):
    make, reason, message = IMPOSSIBLE[name]
    sound = make()
    rate = RATE if isinstance(sound, np.ndarray) else None
    with pytest.warns(UserWarning, match=message) as said:
        assert len(load_audio(sound, rate)) == len(LEFT)
    assert len(said) == 1 and doubts(sound, sampling_rate=rate) == [reason]


@pytest.mark.parametrize("name", FINE)
def test_sound_that_is_only_unusual(name):
    assert not doubts(FINE[name]())


CASES = {
    "a25_vbr_noxing.mp3": (2.98, None),
    "m_vbr_q5_noxing.mp3": (29.4, None),
    "m_pause_vbr_noxing.mp3": (37.4, None),
    "a31_streamed_sox.wav": (2.98, None),
    "a33_data_size_ffffffff.wav": (2.98, None),
    "a37b_torn_half.flac": (1.28, "torn file"),
    "a37d_torn_half.ogg": (0.99, "torn file"),
    "b07b_one_spike_1000.wav": (2.98, "a spike"),
}


@pytest.mark.parametrize("name", CASES)
def test_files_from_complaints(name, shared):
    seconds, reason = CASES[name]
    waveform, said = read_audio(shared / "cases" / name)
    assert len(waveform) / RATE == pytest.approx(seconds, abs=0.1)
    assert [doubt.reason for doubt in said] == ([reason] if reason else [])


# Long files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", (8_000, 11_025, 22_050, 22_051, 44_100, 48_000, 96_000))
def test_resampling_in_blocks_is_resampling_at_once(rate, monkeypatch):
    sound = torch.from_numpy(voice(2.0, rate).astype(np.float32))
    whole = torch.cat(list(audio.resampled([sound], rate)))
    for size in (1, 160, 1_000, 7_777, len(sound) - 1):
        parts = sound[: 40 * size].split(size) if size == 1 else sound.split(size)
        expected = torch.cat(list(audio.resampled([torch.cat(parts)], rate)))
        blockwise = torch.cat(list(audio.resampled(parts, rate)))
        assert blockwise.shape == expected.shape
        assert (blockwise - expected).abs().max() < 2e-6
    assert len(whole) == pytest.approx(2 * RATE, abs=5)


def test_a_file_of_many_blocks_is_the_array_it_was_made_of(tmp_path):
    samples = voice(3 * BLOCK / RATE).astype(np.float32)
    (tmp_path / "long.wav").write_bytes(as_file(samples))
    assert torch.equal(load_audio(tmp_path / "long.wav"), torch.from_numpy(samples))


MEASURE = """
import resource, sys
from tiny_asr.audio import load_audio
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
before = peak()
waveform = load_audio(sys.argv[1])
print(len(waveform) / 16_000, before, peak(), float(waveform[-8_000:].abs().max()))
"""


def memory_to_read(path, hours: float, rate: int, channels: int) -> tuple[float, float]:
    """Megabytes of a process before and after it has read so many hours, written for it."""
    block = np.tile(voice(10.0, rate)[:, None], channels).astype(np.float32)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        for _ in range(round(360 * hours)):
            file.write(block)
    command = [sys.executable, "-c", MEASURE, str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, before, after, end = map(float, out.split())
    assert seconds == pytest.approx(3600 * hours, abs=0.01) and end > 0.2
    return before, after


def test_half_an_hour_takes_little_memory(tmp_path):
    before, after = memory_to_read(tmp_path / "long.wav", 0.5, 8_000, 2)
    assert after - before < 150, "115 MB at 16 kHz; read and resampled at once it would be 600"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "rate"), [("wav", 8_000), ("flac", 44_100)])
def test_three_hours_take_less_than_a_gigabyte(kind, rate, tmp_path):
    _, after = memory_to_read(tmp_path / f"long.{kind}", 3, rate, 2 if rate == 8_000 else 1)
    assert after < 1_000


# Damage -------------------------------------------------------------------------------------------


DAMAGES = 300


def damaged(seed: int) -> tuple[str, bytes]:
    """A file with one thing wrong: cut off, bytes flipped, or two stretches exchanged."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    data = bytearray(encoded(kind, 1.0, [8_000, 16_000, 24_000][seed % 3], 1 + seed % 2))
    how = ("cut", "flipped", "swapped")[seed // len(KINDS) % 3]
    if how == "cut":
        del data[int(rng.integers(1, len(data))) :]
    elif how == "flipped":
        # Half of them in the first bytes, where the headers are.
        reach = len(data) if seed % 2 else 100
        for place in rng.integers(0, reach, int(rng.integers(1, 20))):
            data[place] ^= int(rng.integers(1, 256))
    else:
        size = int(rng.integers(4, len(data) // 3))
        a, b = (
            int(rng.integers(0, len(data) // 3)),
            int(rng.integers(len(data) // 2, len(data) - size)),
        )
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return f"{how} {kind}", bytes(data)


def test_three_hundred_damaged_files():
    """Each gives samples, with a doubt where it ends early, or is refused in one line."""
    outcomes = Counter()
    for seed in range(DAMAGES):
        name, data = damaged(seed)
        started = time.perf_counter()
        try:
            waveform, said = read_audio({"bytes": data, "path": name})
        except AudioError as error:
            assert re.fullmatch(rf"{name} [^\n]*expected [^\n]*", str(error))
            outcomes[name.split()[0], "refused"] += 1
        else:
            assert waveform.ndim == 1 and torch.isfinite(waveform).all()
            if name.startswith("cut") and not said:
                assert len(waveform) > 0.85 * RATE, f"{name}, seed {seed}: cut off, and no word"
            outcomes[name.split()[0], "doubted" if said else "read"] += 1
        assert time.perf_counter() - started < 10, name
    assert outcomes["cut", "doubted"] > 20 and outcomes["flipped", "refused"] > 10, outcomes


def test_damaged_files_on_the_command_line(tmp_path):
    """For each a text, perhaps with a warning, or one line of refusal; never a traceback."""
    paths = []
    for seed in range(0, DAMAGES, 15):
        name, data = damaged(seed)
        paths.append(tmp_path / f"{seed}-{re.sub('[^a-zA-Z0-9]', '-', name)}.audio")
        paths[-1].write_bytes(data)
    command = [sys.executable, "-m", "tiny_asr.cli", "transcribe", "--json", "--device", "cpu"]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True)
    files = json.loads(done.stdout)["files"]
    assert [file["file"] for file in files] == list(map(str, paths))
    assert all(("text" in file) != ("error" in file) for file in files)
    assert done.returncode == (2 if any("error" in file for file in files) else 0)
    assert "Traceback" not in done.stderr, done.stderr
    assert sum("error" in file for file in files) == sum(
        line.startswith("tiny-asr: ") and "torn?" not in line
        for line in done.stderr.splitlines()
        if "arning" not in line
    ), done.stderr


# What only FFmpeg reads ---------------------------------------------------------------------------

PHONE = {
    "memo.m4a": b"\0\0\0\x1cftypM4A \0\0\2\0",
    "film.mp4": b"\0\0\0\x20ftypisom\0\0\2\0",
    "page.webm": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\x42\xf7",
    "old.amr": b"#!AMR\n\x3c\x48\xf5\x1f\x96\x66",
    "radio.aac": b"\xff\xf1\x50\x80\x2c\x1f\xfc\xde",
}


@pytest.mark.parametrize("name", PHONE)
def test_what_phones_write_is_refused_with_advice(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / name).write_bytes(PHONE[name] + bytes(1000))
    with pytest.raises(AudioError, match=rf"{name} is M4A.*no `ffmpeg`.*install FFmpeg"):
        load_audio(tmp_path / name)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg on the PATH")
@pytest.mark.parametrize("coding", ["m4a -c:a aac", "mp4 -c:a aac", "webm -c:a libopus"])
def test_what_phones_write_is_read_by_ffmpeg(coding, tmp_path):
    suffix, *options = coding.split()
    path = tmp_path / f"memo.{suffix}"
    command = ["ffmpeg", "-v", "error", "-i", str(sample_clip()), *options, str(path)]
    subprocess.run(command, check=True)
    expected = load_audio(sample_clip())
    for source in (path, path.read_bytes()):
        waveform, said = read_audio(source)
        assert not said and len(waveform) == pytest.approx(len(expected), abs=0.15 * RATE)
    path.write_bytes(path.read_bytes()[:-9000])
    try:
        assert doubts(path) == ["torn file"]
    except AudioError as error:
        assert "memo" in str(error) and "\n" not in str(error)


def test_ffmpeg_is_asked_and_its_complaints_are_passed_on(tmp_path, monkeypatch):
    """With a program of that name that copies a FLAC file, or fails."""
    flac, path = tmp_path / "clip.flac", tmp_path / "memo.m4a"
    flac.write_bytes(flac_of_unknown_length())
    path.write_bytes(PHONE["memo.m4a"] + bytes(100))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program = tmp_path / "ffmpeg"
    for script, outcome in (
        (f"cat {flac}", []),
        (f"cat {flac}; echo 'partial file' >&2", ["torn file"]),
    ):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        waveform, said = read_audio(path)
        assert len(waveform) == SECONDS * RATE and [d.reason for d in said] == outcome
    program.write_text("#!/bin/sh\necho 'moov atom\nnot found' >&2; exit 1\n")
    with pytest.raises(AudioError, match=r"memo\.m4a cannot .*FFmpeg \(moov atom not found\)"):
        load_audio(path)
