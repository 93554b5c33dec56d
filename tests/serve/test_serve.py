"""`tiny-asr serve`, as other programs see it: a real server on this machine, with the real pair."""

import http.client
import io
import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recipes.load import health, load_test, post, started
from tiny_asr import ASRModel, load_audio, sample_clip
from tiny_asr.audio import timed_pieces
from tiny_asr.data.dataset import load_data
from tiny_asr.hub import data_dir

RATE = 16_000
TOKEN = "a-token-for-the-tests"
SAMPLE = sample_clip().read_bytes()
STRICT = ("--max-mb", "0.3", "--max-seconds", "40", "--queue", "3", "--batch-size", "1")


@pytest.fixture(scope="module")
def url():
    with started() as (address, process):
        yield address
        process.terminate()
        assert process.wait() == 0


@pytest.fixture(scope="module")
def strict():
    """A server with a token and narrow limits, and its process."""
    with started(*STRICT, TINY_ASR_TOKEN=TOKEN) as server:
        yield server


@cache
def tiny() -> ASRModel:
    return ASRModel.from_pretrained("tiny")


@cache
def clips(count: int) -> list[bytes]:
    """Bundled test clips of unlike lengths, encoded."""
    test = load_data(data_dir() / "speech" / "test.parquet")
    return [test[i * len(test) // count].audio for i in range(count)]


def flac(waveform) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.asarray(waveform, dtype=np.float32), RATE, format="FLAC")
    return file.getvalue()


@cache
def long_clip() -> torch.Tensor:
    """Half a minute of sentences with pauses between them."""
    pause = torch.zeros(RATE)
    parts = [part for clip in clips(12) for part in (load_audio(clip), pause)]
    return torch.cat(parts)[: 38 * RATE]


def ask(url: str, sound: bytes | None = SAMPLE, token: str | None = None, **fields: str):
    """Status and body of one request, the body as JSON where it is."""
    status, headers, body = post(url, sound, token, **{"model": "tiny"} | fields)
    is_json = headers["content-type"].startswith("application/json")
    return status, json.loads(body) if is_json else body.decode()


def refused(answer, status: int, says: str) -> dict:
    """The error of an answer that has to be one, in OpenAI's shape."""
    assert answer[0] == status, answer
    error = answer[1]["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert re.search(says, error["message"]), error["message"]
    return error


def wait_until(condition) -> None:
    """Poll for at most a minute."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come about within a minute")


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def by_hand(url: str, sound: bytes, sent: float = 1.0, **headers: str) -> socket.socket:
    """A connection over which a `sent` part of a request has gone."""
    begin = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    begin += b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = begin + sound + b"\r\n--B--\r\n"
    lines = ["POST /v1/audio/transcriptions HTTP/1.1", "Host: localhost"]
    lines += ["Content-Type: multipart/form-data; boundary=B", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    connection = connect(url)
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[: int(sent * len(body))])
    return connection


# What is answered ------------------------------------------------------------------------------


def test_each_format_has_the_models_text(url):
    text = tiny().transcribe(SAMPLE)
    assert ask(url) == (200, {"text": text})
    assert ask(url, response_format="text") == (200, text + "\n")
    status, verbose = ask(url, response_format="verbose_json", language="en", temperature="0")
    assert status == 200 and verbose["text"] == text and verbose["language"] == "english"
    seconds = len(load_audio(SAMPLE)) / RATE
    assert verbose["duration"] == pytest.approx(seconds, abs=1e-3)
    (segment,) = verbose["segments"]
    assert segment["text"] == text and 0 <= segment["start"] < segment["end"] <= seconds + 1e-3
    status, srt = ask(url, response_format="srt")
    number, times, *lines = srt.splitlines()
    assert (status, number, " ".join(lines)) == (200, "1", text) and len(lines) == 2
    assert re.fullmatch(r"00:00:0\d,\d{3} --> 00:00:0\d,\d{3}", times)
    status, vtt = ask(url, response_format="vtt")
    assert (
        vtt.startswith("WEBVTT\n\n00:00:0") and times.replace(",", ".") in vtt and lines[0] in vtt
    )


def test_long_audio_has_a_segment_for_each_piece_at_its_time(url):
    clip = long_clip()
    _, answer = ask(url, flac(clip), response_format="verbose_json")
    heard = load_audio(flac(clip))
    assert answer["text"] == tiny().transcribe(heard, RATE)
    times = [(s["start"], s["end"]) for s in answer["segments"]]
    pieces = [p[1:] for p in timed_pieces(heard, tiny().config.max_seconds)]
    assert len(times) > 3 and set(times) <= {(round(a, 3), round(b, 3)) for a, b in pieces}
    assert times == sorted(times)


def test_words_come_with_their_times_in_the_file(url):
    sound = flac(long_clip())
    fields = {"timestamp_granularities[]": "word"}
    status, answer = ask(url, sound, response_format="verbose_json", **fields)
    text, words = tiny().transcribe(load_audio(sound), RATE, words=True)
    assert status == 200 and answer["text"] == text and len(words) > 20
    told = [(word["word"], word["start"], word["end"]) for word in answer["words"]]
    assert told == [(w.text.strip(), round(w.begin, 3), round(w.end, 3)) for w in words]
    assert "words" not in ask(url, response_format="verbose_json")[1]
    _, srt = ask(url, sound, response_format="srt")
    cues = [cue.splitlines()[2:] for cue in srt.split("\n\n")]
    assert " ".join(" ".join(cue) for cue in cues) == text and len(cues) > 5
    assert max(len(line) for cue in cues for line in cue) <= 42


def test_the_text_of_a_request_does_not_depend_on_its_neighbours(url):
    sounds = clips(16)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda sound: ask(url, sound), sounds))
    alone = [(200, {"text": tiny().transcribe(sound)}) for sound in sounds]
    assert answers == alone
    assert len({answer[1]["text"] for answer in answers}) > 8
    assert max(map(int, health(url)["batches"])) > 1  # they were decoded together


def test_a_prompt_is_ignored_and_the_answer_says_so(url):
    status, headers, _ = post(url, SAMPLE, model="tiny", prompt="Names: Ada", temperature="0")
    assert status == 200 and headers["x-ignored"] == "prompt, temperature"
    assert "x-ignored" not in post(url, SAMPLE, model="tiny")[1]


def test_a_torn_file_is_transcribed_with_a_warning(url):
    status, answer = ask(url, SAMPLE[: len(SAMPLE) // 2])
    assert status == 200 and answer["text"]
    assert "torn" in answer["warnings"][0]


def test_health(url):
    answer = health(url)
    assert answer["status"] == "ok" and answer["model"] == "tiny"
    assert answer["open"] == 0 and answer["limit"] == 64


def models(url: str, token: str | None = None, **headers: str):
    headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = http.client.HTTPConnection(url.split("//")[1].removesuffix("/v1"))
    connection.request("GET", "/v1/models", headers=headers)
    answer = connection.getresponse()
    return answer.status, json.load(answer)


def test_the_model_is_listed_as_openai_lists_them(url):
    status, answer = models(url, "any")
    assert status == 200 and answer.keys() == {"object", "data"} and answer["object"] == "list"
    (model,) = answer["data"]
    assert 0 <= time.time() - model.pop("created") < 3600
    assert model == {"id": "tiny", "object": "model", "owned_by": "tiny_asr"}
    refused(models(url, Origin="http://example.org"), 403, "a page in a browser")


def test_the_load_test_counts_what_it_sends(url):
    sounds = [(sound, 2.0) for sound in clips(12)]
    result = load_test(url, sounds, clients=6)
    assert result["statuses"] == {200: 12} and result["requests"] == 12
    pieces = sum(size * count for size, count in result["batch_sizes"].items())
    assert pieces >= 12 and result["mean_batch"] >= 1
    assert 0 < result["latency_median"] <= result["latency_95"] <= result["latency_longest"]


# What is refused -------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).normal(0, 0.1, RATE)
BAD = {
    "empty": ({"sound": b""}, 400, "is empty", "file"),
    "not audio": ({"sound": b"These are words, not waves."}, 400, "cannot be decoded", "file"),
    "damaged": ({"sound": SAMPLE[:60] + b"\0" * 9000}, 400, "cannot be decoded", "file"),
    "too long": ({"sound": flac(np.zeros(1501 * RATE))}, 400, "lasts over 1500 s", "file"),
    "no file": ({"sound": None}, 400, "no file came", "file"),
    "no model": ({"model": ""}, 400, "no model came", "model"),
    "unknown model": ({"model": "whisper-1"}, 404, "'whisper-1' is not here.*'tiny'", "model"),
    "format": ({"response_format": "xml"}, 400, "'xml' came.*verbose_json", "response_format"),
    "stream": ({"stream": "true"}, 400, "whole transcripts only", "stream"),
    "language": ({"language": "de"}, 400, "'de' came; expected en", "language"),
    "words": (
        {"timestamp_granularities[]": "word"}, 400, "expected verbose", "timestamp_granularities[]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_what_is_wrong(url, name):
    asked, status, says, param = BAD[name]
    assert refused(ask(url, **asked), status, says)["param"] == param
    assert ask(url)[0] == 200


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("application/json", b'{"model": "tiny"}', "expected multipart/form-data"),
        ("multipart/form-data", b"x", "no readable form came"),
        ("multipart/form-data; boundary=B", b"--C\r\nnonsense", "no (readable form|file) came"),
    ],
)
def test_what_is_no_form_is_told_so(url, kind, body, says):
    connection = http.client.HTTPConnection(url.split("//")[1].removesuffix("/v1"))
    connection.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": kind})
    answer = connection.getresponse()
    refused((answer.status, json.load(answer)), 400, says)


def test_other_paths_and_methods_are_json_errors_too(url):
    for path, status in (("/v1/nothing", 404), ("/v1/audio/transcriptions", 405)):
        connection = http.client.HTTPConnection(url.split("//")[1].removesuffix("/v1"))
        connection.request("GET", path)
        answer = connection.getresponse()
        refused((answer.status, json.load(answer)), status, "Not")


def test_a_page_in_a_browser_can_not_use_a_server_without_token(url):
    with by_hand(url, SAMPLE, Origin="http://example.org") as connection:
        assert b"403 Forbidden" in connection.recv(1000)


def test_too_many_bytes_are_413_whether_all_are_sent_or_asked_about(strict):
    url, _ = strict
    large = bytes(1_500_000)
    refused(ask(url, large, TOKEN), 413, r"larger than 0.3 MB")
    headers = {"Authorization": f"Bearer {TOKEN}", "Expect": "100-continue"}
    with by_hand(url, large, 0.0001, **headers) as connection:
        assert b"413" in connection.recv(1000)


def test_the_token_is_asked_for(strict):
    url, _ = strict
    for token in (None, "", "wrong", TOKEN + "x", "\N{LATIN SMALL LETTER E WITH ACUTE}"):
        assert refused(ask(url, token=token), 401, "no valid token")["code"] == "invalid_api_key"
    assert ask(url, token=TOKEN)[0] == 200
    assert health(url)["status"] == "ok"
    assert refused(models(url), 401, "no valid token")["code"] == "invalid_api_key"
    assert models(url, TOKEN)[0] == 200


def test_one_request_too_many_is_503_with_retry_after(strict):
    url, _ = strict
    half = [by_hand(url, SAMPLE, 0.5, Authorization=f"Bearer {TOKEN}") for _ in range(3)]
    wait_until(lambda: health(url)["open"] == 3)
    status, headers, body = post(url, SAMPLE, TOKEN, model="tiny")
    assert status == 503 and int(headers["retry-after"]) >= 1
    refused((status, json.loads(body)), 503, "3 requests are open")
    for connection in half:  # clients that go away in the middle of an upload
        connection.close()
    wait_until(lambda: health(url)["open"] == 0)
    assert ask(url, token=TOKEN)[0] == 200


def test_nothing_more_is_decoded_for_a_client_that_has_gone(strict):
    url, _ = strict
    sound = flac(long_clip()[: 12 * RATE])  # 0.3 MB are the limit
    pieces = len(timed_pieces(load_audio(sound), tiny().config.max_seconds))
    assert pieces > 1

    def decoded() -> int:
        return sum(int(size) * count for size, count in health(url)["batches"].items())

    before = decoded()
    by_hand(url, sound, Authorization=f"Bearer {TOKEN}").close()
    wait_until(lambda: health(url)["open"] == 0)
    assert ask(url, token=TOKEN)[0] == 200
    assert decoded() - before < pieces + 1


def test_a_stop_finishes_what_was_accepted_and_takes_nothing_new(strict):  # its last test
    url, process = strict
    sound = clips(12)[3]
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, url, sound, TOKEN) for _ in range(3)]
        wait_until(lambda: health(url)["open"] == 3)
        process.send_signal(signal.SIGTERM)
        answers = [one.result() for one in asked]
    assert answers == [(200, {"text": tiny().transcribe(sound)})] * 3
    assert process.wait(60) == 0
    with pytest.raises(OSError):
        connect(url)


def test_mistakes_of_whoever_starts_it_are_one_line(tmp_path: Path):
    from command_runs import run_commands

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        commands = {
            ("--host", "0.0.0.0"): "lets other machines in, and no token came",
            ("--host", "nowhere.invalid"): "no token came",
            ("--port", port): "cannot listen at 127.0.0.1, port",
            ("--host", "0.0.0.0", "--token", "short"): "expected at least 16",
            ("--queue", "0"): "requests=0 came; expected more than 0",
            ("--max-seconds", "nan"): "seconds=nan came",
        }
        results = run_commands([["serve", *options] for options in commands], tmp_path)
    for (status, out, err), says in zip(results, commands.values(), strict=True):
        assert (status, out) == (2, "") and says in err and err.count("\n") == 1
    missing = run_commands([["serve"]], tmp_path, missing=["uvicorn"])
    assert missing[0][0] == 2 and "pip install '.[serve]'" in missing[0][2]
