"""An HTTP server that transcribes, in the shape of OpenAI's endpoint."""
