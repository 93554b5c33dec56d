"""What one client may ask for, and how it is told, even while it sends, that it asked for more."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse

OVERHEAD = 2**16  # bytes of a request beside its file: the other fields
DRAINED = 8  # so many times the allowed bytes are read and thrown away before an answer
RETRY_SECONDS = 1  # what a client is told to wait when too many are served

Receive = Callable[[], Awaitable[dict]]


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
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value} came; expected more than 0")

    @property
    def bytes(self) -> int:
        """Of a whole request."""
        return int(self.megabytes * 1e6) + OVERHEAD


class Refusal(Exception):
    """An answer that is an error: HTTP status, message, and OpenAI's `param` and `code`."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def response(self) -> JSONResponse:
        """`{"error": {"message", "type", "param", "code"}}`, with the headers that belong to it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_SECONDS)}}
        return JSONResponse({"error": error}, self.status, headers.get(self.status))


def limited(request: Request, limits: Limits) -> Receive:
    """`request.receive`, with a Refusal of a body that has too many bytes.

    What is too much is read first, up to a point, and thrown away, because a client that is still
    sending does not look for an answer. One that asked beforehand (`Expect`, as curl does) gets
    its answer before it sends anything.
    """
    length = request.headers.get("content-length", "")
    asked = request.headers.get("expect", "").lower() == "100-continue"
    came = 0

    async def receive() -> dict:
        nonlocal came
        too_much = asked and length.isdecimal() and int(length) > limits.bytes
        while not too_much:
            message = await request.receive()
            came += len(message.get("body", b""))
            if came <= limits.bytes:
                return message
            too_much = not message.get("more_body") or came > DRAINED * limits.bytes
        what = f"the upload is larger than {limits.megabytes:g} MB, which is the limit here"
        raise Refusal(413, f"{what}: send FLAC or Opus, or cut it", "file")

    return receive
