"""Turn the novels into transcripts, and put five of them aside for testing.

    python -m recipes.text

reads `text/public-domain-english.txt.xz` of the shared material (TINY_ASR_SHARED, or ../shared
beside the checkout) and writes, under runs/prepare/text/,

    train.txt     one transcript a line in the order of the books, an empty line after each book
    heldout.tsv   book <TAB> transcript, of the five books that nothing is ever trained on

A transcript is lower case: letters, apostrophes, digits, as the package makes training targets.
Nothing is random.
"""

import argparse
import lzma
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tiny_asr.data.utterance import normalise_transcript

CHECKOUT = Path(__file__).resolve().parents[1]
WORK = CHECKOUT / "runs" / "prepare"
SHARED = Path(os.environ.get("TINY_ASR_SHARED", CHECKOUT.parent / "shared"))


def local_or_hub(folder: Path, hub_id: str) -> str:
    """A public model: the local copy where there is one, else its hub id, which needs a network."""
    return str(folder) if folder.is_dir() else hub_id


HELD_OUT = {
    "ENG18652_Carroll": "Lewis Carroll, Alice's Adventures in Wonderland (1865)",
    "Stevenson_Treasure_1883": "Robert Louis Stevenson, Treasure Island (1883)",
    "Doyle_Hound_1902": "Arthur Conan Doyle, The Hound of the Baskervilles (1902)",
    "Burnett_Garden_1911": "Frances Hodgson Burnett, The Secret Garden (1911)",
    "Woolf_Lighthouse_1927": "Virginia Woolf, To the Lighthouse (1927)",
}
BOOK = "### "
SPOKEN = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}  # before a full stop
ABBREVIATION = re.compile(r"\b(mr|mrs|dr|st)\.", re.IGNORECASE)


def transcript(line: str) -> str:
    """A printed sentence as one would write it down from hearing."""
    line = ABBREVIATION.sub(lambda match: SPOKEN[match[1].lower()], line)
    return normalise_transcript(line.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def books(text: Path) -> Iterator[tuple[str, list[str]]]:
    """Each book's name and its transcripts."""
    name, lines = "", []
    with lzma.open(text, "rt", encoding="utf-8") as source:
        for line in source:
            if line.startswith(BOOK):
                if lines:
                    yield name, lines
                name, lines = line.removeprefix(BOOK).strip(), []
            elif words := transcript(line):
                lines.append(words)
    if lines:
        yield name, lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Make transcripts of the novels.")
    source = SHARED / "text" / "public-domain-english.txt.xz"
    parser.add_argument("--text", type=Path, default=source, help="sentences, one a line, .txt.xz")
    parser.add_argument("--out", type=Path, default=WORK / "text", help="the folder to write to")
    arguments = parser.parse_args()
    if not arguments.text.is_file():
        parser.error(f"no text at {arguments.text}; name one with --text, or set TINY_ASR_SHARED")
    arguments.out.mkdir(parents=True, exist_ok=True)
    missing, sentences = set(HELD_OUT), 0
    with (
        open(arguments.out / "train.txt", "w", encoding="utf-8") as train,
        open(arguments.out / "heldout.tsv", "w", encoding="utf-8") as heldout,
    ):
        for name, lines in books(arguments.text):
            if name in HELD_OUT:
                missing.remove(name)
                heldout.writelines(f"{name}\t{line}\n" for line in lines)
            else:
                sentences += len(lines)
                train.writelines(f"{line}\n" for line in lines)
                train.write("\n")
    if missing:
        parser.error(f"{arguments.text} lacks the books {', '.join(sorted(missing))}")
    print(f"wrote {arguments.out}: {sentences} sentences to train on, {len(HELD_OUT)} books aside")


if __name__ == "__main__":
    main()
