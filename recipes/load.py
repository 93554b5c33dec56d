"""How many requests `tiny-asr serve` answers, and how long each waits.

`python -m recipes.load --clients 32` prints it. Each client sends one clip after the other,
as soon as the last was answered: the load of a machine that is never without work. Without --url
the server is started here, beside the clients, which take part of its cores.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

ENDPOINT = "/audio/transcriptions"


def post(
    url: str, sound: bytes | None, token: str | None = None, **fields: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a clip as a form: the status, the headers and the body of the answer.

    Args:
        url: of the server, which ends in `/v1`.
        sound: the file's bytes; None sends no file.
        fields: `model`, `response_format`, ...
    """
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Disposition: form-data; name="
    parts = [f'{head}"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    if sound is not None:
        parts += [f'{head}"file"; filename="clip"\r\n\r\n'.encode(), sound, b"\r\n"]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    request = urllib.request.Request(url + ENDPOINT, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def health(url: str) -> dict:
    """What the server says of itself."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as answer:
        return json.load(answer)


@contextmanager
def started(*options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """`tiny-asr serve` with these options, on a free port: its address and its process.

    It is stopped at the end, cleanly.
    """
    command = [sys.executable, "-m", "tiny_asr.cli", "serve", "--port", "0", *options]
    environment = os.environ | environment
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at http" not in line:
            raise ValueError(f"the server did not start ({line!r}); its reason stands above")
        yield line.split(" at ")[1].split(";")[0], process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def load_test(
    url: str, clips: Sequence[tuple[bytes, float]], clients: int, token: str | None = None
) -> dict:
    """Send all clips, so many at a time.

    Args:
        clips: encoded sounds and their seconds.
    Returns:
        requests and seconds of sound per second, latencies in seconds, of those that were answered
        with a text; statuses, batch sizes.
    Raises ValueError if none was.
    """
    url = url.rstrip("/").removesuffix("/v1") + "/v1"
    before = health(url)

    def one(clip: tuple[bytes, float]) -> tuple[int, float, bytes]:
        start = time.perf_counter()
        status, _, body = post(url, clip[0], token, model=before["model"])
        return status, time.perf_counter() - start, body

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(one, clips))
    wall = time.perf_counter() - start
    after = health(url)
    batches = Counter(after["batches"])
    batches.subtract(before["batches"])
    sizes = {int(size): count for size, count in batches.items() if count}
    good = [place for place, (status, _, _) in enumerate(answers) if status == 200]
    if not good:
        status, _, body = answers[0]
        raise ValueError(f"no request was answered; the first with {status}: {body[:200]!r}")
    latencies = np.array([answers[place][1] for place in good])
    return {
        "model": after["model"],
        "device": after["device"],
        "clients": clients,
        "requests": len(answers),
        "statuses": dict(Counter(status for status, _, _ in answers)),
        "per_second": len(good) / wall,
        "times_real_time": sum(clips[place][1] for place in good) / wall,
        "latency_median": float(np.median(latencies)),
        "latency_95": float(np.percentile(latencies, 95)),
        "latency_longest": float(latencies.max()),
        "batch_sizes": dict(sorted(sizes.items())),
        "mean_batch": sum(size * n for size, n in sizes.items()) / max(1, sum(sizes.values())),
    }


def main(
    url: Annotated[str | None, typer.Option(help="of a server that runs")] = None,
    model: Annotated[str, typer.Option(help="what to serve, without --url")] = "tiny",
    batch_size: Annotated[int, typer.Option(help="of the server, without --url")] = 8,
    clients: Annotated[int, typer.Option(help="that send at the same time")] = 32,
    requests: Annotated[int, typer.Option(help="in all")] = 256,
    data: Annotated[Path | None, typer.Option(help="a parquet file; else the bundled test")] = None,
    token: Annotated[str | None, typer.Option(envvar="TINY_ASR_TOKEN")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Load a server with many clients at once; print requests/s, latency and batch sizes."""
    from tiny_asr.data.dataset import load_data
    from tiny_asr.hub import data_dir

    data = data or data_dir() / "speech" / "test.parquet"
    utterances = list(load_data(data))
    chosen = [utterances[i * 7919 % len(utterances)] for i in range(requests)]  # lengths mixed
    clips = [
        (clip.audio if isinstance(clip.audio, bytes) else Path(str(clip.audio)).read_bytes(), s)
        for clip in chosen
        for s in [clip.seconds]
    ]
    options = ("--model", model, "--batch-size", str(batch_size), "--queue", str(2 * clients))
    if url is not None:
        result = load_test(url, clips, clients, token)
    else:
        with started(*options) as (address, _):
            load_test(address, clips[:batch_size], clients, token)  # its first batch is slow
            result = load_test(address, clips, clients, token)
    result["mean_seconds"] = sum(seconds for _, seconds in clips) / len(clips)
    print(json.dumps(result, indent=2) if as_json else _table(result))
    if result["statuses"].keys() != {200}:
        raise typer.Exit(1)


def _table(r: dict) -> str:
    """The result for a terminal."""
    sizes = ", ".join(f"{size} x {count}" for size, count in r["batch_sizes"].items())
    return "\n".join(
        [
            f"model      {r['model']}, {r['device']}",
            f"requests   {r['requests']} from {r['clients']} clients, {r['mean_seconds']:.1f} s "
            f"of sound each on average; statuses {r['statuses']}",
            f"speed      {r['per_second']:.2f} requests/s, {r['times_real_time']:.1f}x real time",
            f"latency    median {r['latency_median']:.2f} s, 95 % within {r['latency_95']:.2f} s, "
            f"longest {r['latency_longest']:.2f} s",
            f"batches    {r['mean_batch']:.1f} pieces on average (size x count: {sizes})",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
