"""The prompt: the few text tokens around the audio.

The decoder is a language model, so the audio reaches it inside a sentence it can continue. The
prompt is one literal string with the marker `<audio>` where the audio embeddings go. The string is
split at the marker before it is tokenised: no embedding row is added and no vocabulary resized, so
any causal language model works. The literal is stored in the checkpoint's config, because training
and inference must use the very same one (a mismatch costs accuracy), and because some chat
templates print today's date.
"""

AUDIO_MARKER = "<audio>"
INSTRUCTION = "Transcribe the speech."
USUAL_TOKENS = 20  # of such a prompt, where no tokenizer is at hand to count them


def default_prompt(tokenizer) -> str:
    """The prompt for a decoder that has none yet, chosen by what its tokenizer declares.

    ChatML models (`<|im_start|>` in the chat template) get one user turn with the marker and an
    instruction. Where the template knows SmolLM3's `/no_think` switch, thinking is switched off the
    way that template does it: a system turn with the switch, and an empty `<think>` block after the
    assistant tag. All other models get the marker, `Transcript:` and a space, after
    their own beginning-of-text token if their tokenizer puts one before every text.

    Args:
        tokenizer: a `transformers` tokenizer.
    Returns:
        The literal prompt with `<audio>` in it.
    """
    template = tokenizer.chat_template or ""
    if "<|im_start|>" in template:
        user = f"<|im_start|>user\n{AUDIO_MARKER}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        if "/no_think" in template:
            return f"<|im_start|>system\n/no_think<|im_end|>\n{user}<think>\n\n</think>\n"
        return user
    first = tokenizer("a").input_ids[0]
    begin = tokenizer.bos_token if first == tokenizer.bos_token_id is not None else ""
    return f"{begin}{AUDIO_MARKER}Transcript: "


def default_end_token(tokenizer) -> str:
    """The token that ends a transcript: `<|im_end|>` for ChatML, else the tokenizer's own end."""
    if "<|im_end|>" in (tokenizer.chat_template or ""):
        return "<|im_end|>"
    if tokenizer.eos_token is None:
        raise ValueError(
            "this decoder's tokenizer has no end-of-text token, so a transcript could never end; "
            "set end_token in the config to one of its tokens"
        )
    return tokenizer.eos_token


def split_prompt(prompt: str) -> tuple[str, str]:
    """The text before and after the audio. The marker must stand in the prompt exactly once."""
    if prompt.count(AUDIO_MARKER) != 1:
        raise ValueError(
            f"the prompt {prompt!r} holds the marker {AUDIO_MARKER} {prompt.count(AUDIO_MARKER)} "
            "times; it must hold it exactly once, where the audio goes"
        )
    before, after = prompt.split(AUDIO_MARKER)
    return before, after
