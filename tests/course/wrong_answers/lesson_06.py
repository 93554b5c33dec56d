# ruff: noqa: F811
# Plausible wrong answers to the exercises of notebook 06: `# %% ID | what the check must say`.

import numpy as np


# %% 06-edits | comparing place by place
def edits(said, heard):
    wrong = sum(a != b for a, b in zip(said, heard, strict=False))
    return wrong + abs(len(said) - len(heard))


# %% 06-edits | one error, not two
def edits(said, heard):
    above = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        row = [i]
        for j, other in enumerate(heard, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + 2 * (word != other)))
        above = row
    return above[-1]


# %% 06-edits | row 0 is not all 0
def edits(said, heard):
    table = np.zeros((len(said) + 1, len(heard) + 1), dtype=int)
    table[:, 0] = range(len(said) + 1)
    for i, word in enumerate(said, start=1):
        for j, other in enumerate(heard, start=1):
            diagonal = table[i - 1, j - 1] + (word != other)
            table[i, j] = min(diagonal, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


# %% 06-edits | the order of the words counts
def edits(said, heard):
    return max(len(set(said) - set(heard)), len(set(heard) - set(said)))


# %% 06-edits | your code stopped with IndexError
def edits(said, heard):
    wrong = 0
    for i in range(max(len(said), len(heard))):
        wrong += said[i] != heard[i]
    return wrong


# %% 06-wer | mean of the clips' rates
def wer(errors, words):
    return sum(e / w for e, w in zip(errors, words, strict=True)) / len(words)


# %% 06-wer | not per cent
def wer(errors, words):
    return 100 * sum(errors) / sum(words)


# %% 06-wer | clips without words
def wer(errors, words):
    kept = [(e, w) for e, w in zip(errors, words, strict=True) if w]
    return sum(e for e, _ in kept) / sum(w for _, w in kept)


# %% 06-wer | no upper limit
def wer(errors, words):
    return min(1, sum(errors) / sum(words))


# %% 06-wer | adds 0 words, not 1
def wer(errors, words):
    return sum(errors) / sum(max(1, count) for count in words)


# %% 06-normal | more punctuation than string.punctuation
def simplify(text):
    import string

    for mark in string.punctuation.replace("'", ""):
        text = text.replace(mark, " ")
    return " ".join(text.lower().split())


# %% 06-normal | leaves a space
def simplify(text):
    kept = "".join(c for c in text.lower() if c.isalnum() or c in "' ")
    return " ".join(kept.split())


# %% 06-normal | the underscore is no letter
def simplify(text):
    import re

    return " ".join(re.sub(r"[^\w'\s]", " ", text.lower()).split())


# %% 06-normal | several spaces in a row
def simplify(text):
    return "".join(c if c.isalnum() or c == "'" else " " for c in text.lower())


# %% 06-normal | apostrophes are to be kept
def simplify(text):
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


# %% 06-normal | case is still there
def simplify(text):
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in text).split())


# %% 06-bootstrap | mean of the clips' rates
def interval(errors, words, draws):
    return np.percentile((errors / words)[draws].mean(axis=1), [2.5, 97.5])


# %% 06-bootstrap | words of the same draw
def interval(errors, words, draws):
    return np.percentile(errors[draws].sum(axis=1) / words.sum(), [2.5, 97.5])


# %% 06-bootstrap | the middle 90 %
def interval(errors, words, draws):
    rates = errors[draws].sum(axis=1) / words[draws].sum(axis=1)
    return np.percentile(rates, [5, 95])


# %% 06-bootstrap | takes per cent
def interval(errors, words, draws):
    rates = errors[draws].sum(axis=1) / words[draws].sum(axis=1)
    return np.percentile(rates, [0.025, 0.975])


# %% 06-bootstrap | axis=1
def interval(errors, words, draws):
    rates = errors[draws].sum(axis=0) / words[draws].sum(axis=0)
    return np.percentile(rates, [2.5, 97.5])


# %% 06-snr | take the square root
def mix(speech, noise, snr_db):
    wanted = speech.square().mean() / 10 ** (snr_db / 10)
    return speech + noise * wanted / noise.square().mean()


# %% 06-snr | the root is taken already
def mix(speech, noise, snr_db):
    wanted = speech.square().mean() / 10 ** (snr_db / 20)
    return speech + noise * (wanted / noise.square().mean()).sqrt()


# %% 06-snr | the higher the SNR, the softer the noise
def mix(speech, noise, snr_db):
    wanted = speech.square().mean() * 10 ** (snr_db / 10)
    return speech + noise * (wanted / noise.square().mean()).sqrt()


# %% 06-snr | divide by it
def mix(speech, noise, snr_db):
    wanted = speech.square().mean() / 10 ** (snr_db / 10)
    return speech + noise * wanted.sqrt()


# %% 06-snr | add it to the speech
def mix(speech, noise, snr_db):
    wanted = speech.square().mean() / 10 ** (snr_db / 10)
    return noise * (wanted / noise.square().mean()).sqrt()


# %% 06-rtfx | upside down
def rtfx(sound, took):
    return sum(took) / sum(sound)


# %% 06-rtfx | mean of the batches' speeds
def rtfx(sound, took):
    return sum(s / t for s, t in zip(sound, took, strict=True)) / len(sound)


# %% 06-rtfx | only the seconds of sound
def rtfx(sound, took):
    return sum(sound)
