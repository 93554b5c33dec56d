"""A quiz that answers at once, and reads well where nothing runs: its answers are folded there.

Buttons and not radio buttons, because JupyterLab takes the arrow keys that these need for itself.
The questions are in `quizzes/`.
"""

import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import ascii_lowercase

from ipywidgets import HTML, Button, Layout, VBox

OPTION = Layout(width="fit-content", max_width="100%", height="auto")
# A long option takes a second line instead of being cut off.
STYLE = """<style>
.tiny-asr-option { white-space: normal; text-align: left; line-height: 1.4; padding: 0.3em 0.8em; }
</style>"""


@dataclass(frozen=True)
class Question:
    """One question; plain text throughout.

    ask: the question.
    options: each possible answer -> the sentence that choosing it is answered with.
    right: the letter of the right one, "a" for the first.
    """

    ask: str
    options: dict[str, str]
    right: str

    def lettered(self) -> list[tuple[str, str, str]]:
        """Letter, option, reply, in order."""
        return [(a, *item) for a, item in zip(ascii_lowercase, self.options.items(), strict=False)]

    def verdict(self, letter: str) -> str:
        """What choosing a letter is answered with."""
        reply = {a: reply for a, _, reply in self.lettered()}[letter]
        return f"✓ Right. {reply}" if letter == self.right else f"✗ Not quite. {reply}"


class Quiz(VBox):
    """Questions with a button for each option; where nothing runs, as Markdown."""

    def __init__(self, questions: list[Question]):
        self.questions = questions
        parts = [self._question(*item) for item in enumerate(questions, start=1)]
        super().__init__([HTML(STYLE), *parts], layout=Layout(padding="0 1em"))

    def _question(self, number: int, question: Question) -> VBox:
        """The question, its options, and the reply, which is empty at first."""
        reply, buttons = HTML(), {}

        def answer(pressed: Button) -> None:
            for letter, button in buttons.items():
                right = "success" if letter == question.right else "danger"
                button.button_style = right if button is pressed else ""
                if button is pressed:
                    words = escape(question.verdict(letter))
                    reply.value = f'<div role="status">{words}</div>'

        for letter, option, _ in question.lettered():
            buttons[letter] = Button(description=f"{letter}) {option}", layout=OPTION)
            buttons[letter].add_class("tiny-asr-option")
            buttons[letter].on_click(answer)
        return VBox([HTML(f"<b>{number}. {escape(question.ask)}</b>"), *buttons.values(), reply])

    def __repr__(self) -> str:
        return f"a quiz of {len(self.questions)} questions, in a running notebook"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return super()._repr_mimebundle_(**kwargs) | {"text/markdown": self.markdown()}

    def markdown(self) -> str:
        """The questions with their options, each answer folded."""
        parts = []
        for number, question in enumerate(self.questions, start=1):
            options = "\n".join(f"- {a}) {option}" for a, option, _ in question.lettered())
            replies = "\n".join(f"- {a}) {question.verdict(a)}" for a, _, _ in question.lettered())
            folded = f"<details><summary>Answers to {number}</summary>\n\n{replies}\n\n</details>"
            parts.append(f"**{number}. {question.ask}**\n\n{options}\n\n{folded}")
        return "\n\n".join(parts)


def questions(identifier: str) -> list[Question]:
    """The questions of a notebook, by its number: "01"."""
    file = Path(__file__).parent / "quizzes" / f"lesson_{identifier}.toml"
    return [Question(**each) for each in tomllib.loads(file.read_text("utf-8"))["question"]]


def quiz(identifier: str) -> Quiz:
    """The quiz of a notebook, by its number: "01"."""
    return Quiz(questions(identifier))
