"""The endpoint, in the shape of OpenAI's: `POST /v1/audio/transcriptions` and `GET /v1/models`;
and `GET /health`.

Every request gets an answer. Its sound is read in threads, its pieces are decoded by the one thread
of `Batcher`, together with those of other requests; in between, the event loop is free.
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from torch import Tensor

from tiny_asr.audio import TimedPiece, read_audio, timed_pieces
from tiny_asr.files.reading import LENGTHY, AudioError
from tiny_asr.search.words import Word, joined, words_of_piece
from tiny_asr.serve.batcher import Batcher
from tiny_asr.serve.formats import FORMATS, Segment, Transcript
from tiny_asr.serve.limits import OVERHEAD, RETRY_SECONDS, Limits, Refusal, limited
from tiny_asr.shapes import SAMPLE_RATE

if TYPE_CHECKING:
    from tiny_asr.model import ASRModel

UPLOAD_SECONDS = 60  # for a request to arrive in
USED = {"file", "model", "language", "response_format", "stream", "timestamp_granularities[]"}
GONE = Response(status_code=499)  # nobody reads it


class Asked(NamedTuple):
    """A piece (S,) to decode, and whether its words are to be timed."""

    piece: Tensor
    timed: bool


class Service:
    """A model behind the endpoint.

    Args:
        model: an `ASRModel`; it is called from one thread only.
        name: what clients have to ask for as `model`.
        token: what they have to send as `Authorization: Bearer TOKEN`. None asks for nothing, and
            then pages in a browser are refused, which could call this machine unseen.
    """

    def __init__(self, model: "ASRModel", name: str, limits: Limits, token: str | None = None):
        self.model, self.name, self.limits, self.token = model, name, limits, token
        self.batcher = Batcher(self._decode, limits.batch_size)
        self.open = self.answered = 0
        self.created = int(time.time())

    def _decode(self, asked: list[Asked]) -> list[tuple[str, list[Word]]]:
        """The text of each piece, and its words in seconds of the piece."""
        rows = self.model.generate([one.piece for one in asked])
        texts = self.model.processor.batch_decode(rows)
        timed = [
            words_of_piece(self.model, one.piece, row) if one.timed else []
            for one, row in zip(asked, rows, strict=True)
        ]
        return list(zip(texts, timed, strict=True))

    async def answer(self, request: Request) -> Response:
        """The response to one request, whatever is wrong with it."""
        try:
            self._admit(request)
        except Refusal as refusal:
            await self._let_it_finish(request)
            return refusal.response()
        self.open += 1
        try:
            response = await self._transcribed(request)
            self.answered += 1
            return response
        except Refusal as refusal:
            return refusal.response()
        except ClientDisconnect:
            return GONE
        finally:
            self.open -= 1

    def health(self) -> dict:
        """What is served, where, how many requests are open, and the batches so far by size."""
        return {
            "status": "ok",
            "model": self.name,
            "device": str(self.model.device),
            "open": self.open,
            "limit": self.limits.requests,
            "answered": self.answered,
            "batches": {str(n): count for n, count in sorted(self.batcher.sizes.items())},
        }

    def models(self, request: Request) -> Response:
        """The list of the one model, as OpenAI's clients read it; a refusal of nobody known."""
        try:
            self._know(request)
        except Refusal as refusal:
            return refusal.response()
        model = {"id": self.name, "object": "model", "created": self.created}
        return JSONResponse({"object": "list", "data": [model | {"owned_by": "tiny_asr"}]})

    def _know(self, request: Request) -> None:
        """Refuse a request from nobody known."""
        if self.token is None and "origin" in request.headers:
            what = "this request comes from a page in a browser, and the server has no token"
            raise Refusal(403, f"{what}; expected none: start it with TINY_ASR_TOKEN set")
        if self.token is not None:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                what = "no valid token came; expected the header `Authorization: Bearer TOKEN`"
                advice = "set it as your client's API key"
                raise Refusal(401, f"{what}: {advice}", code="invalid_api_key")

    def _admit(self, request: Request) -> None:
        """Refuse a request from nobody known, or one too many."""
        self._know(request)
        if self.open >= self.limits.requests:
            what = f"{self.open} requests are open here, which is the limit"
            raise Refusal(503, f"{what}: try again in {RETRY_SECONDS} s", code="overloaded")

    async def _let_it_finish(self, request: Request) -> None:
        """Throw away what a refused client sends, up to the limits, so that it sees the answer."""
        if request.headers.get("expect", "").lower() == "100-continue":
            return
        receive = limited(request, self.limits)
        with suppress(Refusal, TimeoutError):
            async with asyncio.timeout(UPLOAD_SECONDS):
                while (await receive()).get("more_body"):
                    pass

    async def _transcribed(self, request: Request) -> Response:
        form = await self._form(request)
        try:
            wanted = self._checked(form)
            words = "word" in form.getlist("timestamp_granularities[]")
            timed = words or wanted in ("srt", "vtt")
            transcript = await self._transcript(request, form["file"], timed)
        finally:
            await form.close()
        ignored = ", ".join(sorted(name for name in form if name not in USED and name.isascii()))
        headers = {"X-Ignored": ignored[:500]} if ignored.isprintable() and ignored else None
        if wanted in ("json", "verbose_json"):
            content = transcript.as_json(verbose=wanted == "verbose_json")
            return JSONResponse(content, headers=headers)
        return PlainTextResponse(transcript.as_plain(wanted), headers=headers)

    async def _form(self, request: Request) -> FormData:
        """The fields; a Refusal if they are too large or too slow, or no form at all."""
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            await self._let_it_finish(request)
            what = f"content of type {kind[:60]!r} came; expected multipart/form-data"
            raise Refusal(400, f"{what} with the fields `file` and `model`")
        request = Request(request.scope, limited(request, self.limits))
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                return await request.form(max_files=1, max_fields=32, max_part_size=OVERHEAD)
        except TimeoutError:
            what = f"the request did not arrive in {UPLOAD_SECONDS} s"
            raise Refusal(408, f"{what}: send a smaller file, FLAC or Opus") from None
        except HTTPException as error:
            raise Refusal(400, f"no readable form came: {error.detail}") from error

    def _checked(self, form: FormData) -> str:
        """The response format; a Refusal of whatever is missing, unknown or not to be had here."""
        model, wanted = form.get("model"), form.get("response_format") or "json"
        language = str(form.get("language") or "en").lower()
        if not isinstance(form.get("file"), UploadFile):
            raise Refusal(400, "no file came; expected sound in the field `file`", "file")
        if not model:
            raise Refusal(400, f"no model came; expected `model` to be {self.name!r}", "model")
        if model != self.name:
            what = f"the model {model!r:.80} is not here; expected {self.name!r}"
            raise Refusal(404, what, "model", "model_not_found")
        if wanted not in FORMATS:
            what = f"response_format {wanted!r:.80} came; expected one of {', '.join(FORMATS)}"
            raise Refusal(400, what, "response_format")
        if str(form.get("stream", "")).lower() not in ("", "false", "0"):
            what = "stream came; this server sends whole transcripts only: leave it out"
            raise Refusal(400, what, "stream")
        if "word" in form.getlist("timestamp_granularities[]") and wanted in ("json", "text"):
            what = f"times of words came with response_format {wanted}; expected verbose_json"
            raise Refusal(400, what, "timestamp_granularities[]")
        if self._english and language not in ("en", "english"):
            what = f"language {language!r:.80} came; expected en, or none: {self.name!r} writes"
            raise Refusal(400, f"{what} English", "language")
        return str(wanted)

    @property
    def _english(self) -> bool:
        return self.model.config.text == "plain"  # else it is whatever the model was trained on

    async def _transcript(self, request: Request, upload: UploadFile, timed: bool) -> Transcript:
        sound = {"bytes": await upload.read(), "path": upload.filename or "the file"}
        read = asyncio.to_thread(self._read, sound)
        del sound
        try:
            waveform, pieces, doubts = await read
        except AudioError as error:
            code = "audio_too_long" if error.reason == LENGTHY else "invalid_audio"
            raise Refusal(400, str(error), "file", code) from error
        asked = [Asked(piece, timed) for piece, _, _ in pieces]
        found = await self._unless_gone(request, asked)
        segments = [
            Segment(start, end, text)
            for (_, start, end), (text, _) in zip(pieces, found, strict=True)
        ]
        words = None
        if timed:
            sounds, of_pieces = [one.piece for one in asked], [words for _, words in found]
            words = await asyncio.to_thread(lambda: joined(waveform, sounds, of_pieces).words)
        seconds, language = len(waveform) / SAMPLE_RATE, "english" if self._english else ""
        return Transcript(segments, seconds, language, doubts, words)

    def _read(self, sound: dict) -> tuple[Tensor, list[TimedPiece], list[str]]:
        """The sound, its pieces with their times, and what may be doubted in it."""
        waveform, doubts = read_audio(sound, max_seconds=self.limits.seconds)
        pieces = timed_pieces(waveform, self.model.config.max_seconds)
        return waveform, pieces, [str(doubt) for doubt in doubts]

    async def _unless_gone(self, request: Request, pieces: list[Asked]) -> list:
        """What `_decode` gives; ClientDisconnect, and no more is decoded, once nobody waits."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        texts = asyncio.wrap_future(self.batcher.submit(pieces))
        left = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({texts, left}, return_when=asyncio.FIRST_COMPLETED)
            if not texts.done():
                raise ClientDisconnect
            return texts.result()
        finally:
            texts.cancel()
            left.cancel()


def build(service: Service, on_start: Callable[[], None] = lambda: None) -> FastAPI:
    """The application around a service, which it closes when it ends.

    Args:
        on_start: called when requests are taken.
    """

    @asynccontextmanager
    async def lifespan(_) -> AsyncIterator[None]:
        on_start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.batcher.close)

    # No pages of documentation: they would fetch their scripts from elsewhere.
    app = FastAPI(title="tiny_asr", lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(request: Request) -> Response:
        """Transcribe the sound in the multipart field `file`."""
        return await service.answer(request)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """The model that is served."""
        return service.models(request)

    @app.get("/health")
    async def health() -> dict:
        """Whether the server works, and how busy it is."""
        return service.health()

    @app.exception_handler(HTTPException)
    async def refused(_, error: HTTPException) -> Response:
        return Refusal(error.status_code, str(error.detail)).response()

    @app.exception_handler(Exception)
    async def failed(_, error: Exception) -> Response:
        what = f"the server failed with a {type(error).__name__}, which its log shows"
        return Refusal(500, what).response()

    return app
