"""The endpoint: `POST /v1/audio/transcriptions` in the shape of OpenAI's, and `GET /health`.

Every request gets an answer, and every error is JSON as OpenAI's clients expect it. Three limits
keep one client from taking the machine: the bytes of an upload, the seconds of sound in it, and the
requests that are open at the same time.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tiny_asr.audio import read_audio, timed_pieces
from tiny_asr.files.reading import LENGTHY, AudioError
from tiny_asr.serve.batcher import Batcher
from tiny_asr.serve.formats import FORMATS, Segment, Transcript
from tiny_asr.shapes import SAMPLE_RATE

if TYPE_CHECKING:
    from tiny_asr.model import ASRModel

log = logging.getLogger("tiny_asr")

UPLOAD_SECONDS = 60  # for a request to arrive in
RETRY_SECONDS = 1  # what a client is told to wait when the queue is full
OVERHEAD = 2**16  # bytes of a request beside its file: the other fields
DRAINED = 8  # so many times the allowed bytes are read and thrown away before an answer
USED = {"file", "model", "language", "response_format", "stream", "timestamp_granularities[]"}


@dataclass(frozen=True)
class Limits:
    """What one client may ask for.

    megabytes: of an upload; seconds: of sound in it; requests: open at the same time;
    batch_size: pieces of sound that are decoded together.
    """

    megabytes: float = 25.0
    seconds: float = 1500.0
    requests: int = 64
    batch_size: int = 8

    def __post_init__(self):
        for name, least in (("megabytes", 0), ("seconds", 0), ("requests", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if not value >= least or value == 0:
                expected = f"at least {least}" if least else "more than 0"
                raise ValueError(f"{name}={value} came; expected {expected}")

    @property
    def bytes(self) -> int:
        """Of a whole request."""
        return int(self.megabytes * 1e6) + OVERHEAD


class Refusal(Exception):
    """An answer that is an error, in OpenAI's words: status, message, parameter, code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> JSONResponse:
        """`{"error": {"message", "type", "param", "code"}}`, with the headers that belong to it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_SECONDS)}}
        return JSONResponse({"error": error}, self.status, headers.get(self.status))


class Service:
    """A model behind the endpoint.

    Args:
        model: an `ASRModel`; it is called from one thread only.
        name: what clients have to ask for as `model`.
        token: what they have to send as `Authorization: Bearer TOKEN`; None asks for nothing, and
            then pages in a browser are refused, which could call this machine unseen.
    """

    def __init__(self, model: "ASRModel", name: str, limits: Limits, token: str | None = None):
        self.model, self.name, self.limits, self.token = model, name, limits, token
        self.batcher = Batcher(self._decode, limits.batch_size)
        self.open = self.answered = 0

    def _decode(self, pieces: list) -> list[str]:
        return self.model.processor.batch_decode(self.model.generate(pieces))

    def admit(self, request: Request) -> None:
        """Raise a Refusal for a request from nobody known, or one too many."""
        if self.token is None and "origin" in request.headers:
            what = "this request comes from a page in a browser, and the server has no token"
            raise Refusal(403, f"{what}; expected none: start it with TINY_ASR_TOKEN set")
        if self.token is not None:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
                what = "no valid token came; expected the header `Authorization: Bearer TOKEN`"
                raise Refusal(401, f"{what}: set it as your client's API key", None, "invalid_api_key")
        if self.open >= self.limits.requests:
            what = f"{self.open} requests are open here, which is the limit"
            raise Refusal(503, f"{what}: try again in {RETRY_SECONDS} s", None, "overloaded")

    async def transcribe(self, request: Request) -> Response:
        """One request, admitted: its form is read, its sound decoded, its format written."""
        async with await self._form(request) as form:
            asked = self._checked(form)
            transcript = await self._transcript(request, form["file"])
        form_name, ignored = asked, sorted(form.keys() - USED)
        headers = {"X-Ignored": ", ".join(ignored)} if ignored else None
        if form_name.endswith("json"):
            content = transcript.as_json(form_name == "verbose_json")
            return JSONResponse(content, headers=headers)
        return PlainTextResponse(transcript.as_plain(form_name), headers=headers)

    async def _form(self, request: Request):
        """The fields; Refusal if they are too large, too slow or none."""
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            what = f"content of type {kind[:60]!r} came; expected multipart/form-data"
            raise Refusal(400, f"{what} with the fields `file` and `model`")
        limited = Request(request.scope, self._limited(request))
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                return await limited.form(max_files=1, max_fields=32, max_part_size=OVERHEAD)
        except TimeoutError:
            what = f"the request did not arrive in {UPLOAD_SECONDS} s"
            raise Refusal(408, f"{what}: send a smaller file, FLAC or Opus") from None

    def _limited(self, request: Request):
        """`request.receive`, which refuses a body of too many bytes.

        What is too much is read first, up to a point, and thrown away: a client that is still
        sending does not see an answer.
        """
        most, length = self.limits.bytes, request.headers.get("content-length", "")
        waits = request.headers.get("expect", "").lower() == "100-continue"
        too_large = Refusal(
            413,
            f"the upload is larger than {self.limits.megabytes:g} MB, which is the limit here; "
            "send FLAC or Opus, or cut it",
            "file",
        )
        came = 0

        async def receive():
            nonlocal came
            if length.isdecimal() and int(length) > most and waits:
                raise too_large
            message = await request.receive()
            came += len(message.get("body", b""))
            while came > most and message.get("more_body") and came < DRAINED * most:
                message = await request.receive()
                came += len(message.get("body", b""))
            if came > most:
                raise too_large
            return message

        return receive

    def _checked(self, form: FormData) -> str:
        """The response format; Refusal for whatever is missing, unknown or not to be had here."""
        if not isinstance(form.get("file"), UploadFile):
            raise Refusal(400, "no file came; expected sound in the field `file`", "file")
        model, wanted = form.get("model"), form.get("response_format") or "json"
        if not model:
            raise Refusal(400, f"no model came; expected `model` to be {self.name!r}", "model")
        if model != self.name:
            what = f"the model {model!r:.80} is not here; expected {self.name!r}"
            raise Refusal(404, what, "model", "model_not_found")
        if wanted not in FORMATS:
            what = f"response_format {wanted!r:.80} came; expected one of {', '.join(FORMATS)}"
            raise Refusal(400, what, "response_format")
        if str(form.get("stream", "false")).lower() not in ("false", "0", ""):
            what = "stream came; this server sends whole transcripts only: leave it out"
            raise Refusal(400, what, "stream")
        if "word" in form.getlist("timestamp_granularities[]"):
            what = "times of words were asked for; this server has those of segments only"
            raise Refusal(400, what, "timestamp_granularities[]")
        language = form.get("language") or "en"
        if self._english and str(language).lower() not in ("en", "english"):
            what = f"language {language!r:.80} came; {self.name!r} writes English"
            raise Refusal(400, f"{what}: expected en, or nothing", "language")
        return str(wanted)

    @property
    def _english(self) -> bool:
        return True

    async def _transcript(self, request: Request, upload: UploadFile) -> Transcript:
        try:
            data = {"bytes": await upload.read(), "path": upload.filename or "the file"}
            waveform, doubts = await asyncio.to_thread(
                read_audio, data, max_seconds=self.limits.seconds
            )
            del data
            pieces = await asyncio.to_thread(
                timed_pieces, waveform, self.model.config.max_seconds
            )
        except AudioError as error:
            code = "audio_too_long" if error.reason == LENGTHY else "invalid_audio"
            raise Refusal(400, str(error), "file", code) from error
        texts = await self._unless_gone(request, [piece for piece, _, _ in pieces])
        segments = [
            Segment(start, end, text)
            for (_, start, end), text in zip(pieces, texts, strict=True)
        ]
        seconds, language = len(waveform) / SAMPLE_RATE, "english" if self._english else ""
        return Transcript(segments, seconds, language, [str(doubt) for doubt in doubts])

    async def _unless_gone(self, request: Request, pieces: list) -> list[str]:
        """The pieces' texts; ClientDisconnect, and nothing more is decoded, if nobody waits."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        texts = asyncio.wrap_future(self.batcher.submit(pieces))
        left = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({texts, left}, return_when=asyncio.FIRST_COMPLETED)
            if texts.done():
                return texts.result()
            raise ClientDisconnect
        finally:
            texts.cancel()
            left.cancel()

    def health(self) -> dict:
        """What is served, where, how many requests are open, and the batches so far by size."""
        sizes = {str(size): count for size, count in sorted(self.batcher.sizes.items())}
        return {
            "status": "ok",
            "model": self.name,
            "device": str(self.model.device),
            "open": self.open,
            "limit": self.limits.requests,
            "answered": self.answered,
            "batches": sizes,
        }


def build(service: Service, on_start=None) -> FastAPI:
    """The application around a service, which it closes when it ends.

    Args:
        on_start: called when requests are taken.
    """

    @asynccontextmanager
    async def lifespan(_) -> AsyncIterator[None]:
        if on_start is not None:
            on_start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.batcher.close)

    # No pages of documentation: they fetch their scripts from elsewhere.
    app = FastAPI(title="tiny_asr", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        """Transcribe the sound in the multipart field `file`."""
        try:
            service.admit(request)
        except Refusal as refusal:
            with suppress(Refusal, ClientDisconnect, TimeoutError):  # let the client finish sending
                async with asyncio.timeout(UPLOAD_SECONDS):
                    receive = service._limited(request)
                    while (await receive()).get("more_body"):
                        pass
            return refusal.response()
        service.open += 1
        try:
            response = await service.transcribe(request)
        except Refusal as refusal:
            response = refusal.response()
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody reads it
        finally:
            service.open -= 1
        service.answered += response.status_code == 200
        return response

    @app.get("/health")
    async def health() -> dict:
        """Whether the server works, and how busy it is."""
        return service.health()

    @app.exception_handler(HTTPException)
    async def as_json(_, error: HTTPException) -> Response:
        return Refusal(error.status_code, str(error.detail)).response()

    @app.exception_handler(Exception)
    async def failed(_, error: Exception) -> Response:
        return Refusal(500, f"the server failed ({type(error).__name__}): see its log").response()

    return app
