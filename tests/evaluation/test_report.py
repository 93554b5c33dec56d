"""The report must be readable, small and closed: no markup from outside, nothing fetched."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
import torch

from tiny_asr.audio import load_audio
from tiny_asr.evaluation.report import write_report
from tiny_asr.evaluation.score import Result, Row, score

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><iframe src='https://example.org'>",
    "a & b <!-- ' \" -->",
    "$\\frac{1}{",
    "\x00\x07 \ud800 \u202e olleh",
    "</audio><svg onload=alert(1)>",
]
ELEMENTS = {
    *("html", "head", "meta", "style", "title", "body", "main", "article", "h1", "h2", "h3", "p"),
    *("span", "strong", "em", "del", "ins", "figure", "picture", "source", "img", "audio"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}
VOID = {"meta", "source", "img"}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "scope", "src", "srcset"),
    *("media", "alt", "controls", "preload", "aria-label"),
}


class Page(HTMLParser):
    """What a browser sees: elements, attributes, the text, and whether every element is closed."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.text, self.open = [], "", []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def result_of(*rows: Row, seconds_elapsed: float | None = 2.0) -> Result:
    return score(rows, seconds_elapsed=seconds_elapsed, device="cpu", dtype="float32")


def tone(seconds: float = 1.0) -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(int(16_000 * seconds)) * 0.15)


@pytest.fixture(scope="module")
def ordinary() -> Result:
    return result_of(
        Row("fine", "all is well", "all is well", 1.5, {"voice": "awb"}),
        Row("half", "the quick fox ran", "the quit fox", 3.0, {"voice": "slt"}),
        Row("loop", "go", "go go go go", 7.0, {"voice": "slt"}),
        Row("noise", "", "thank you", 2.0),
    )


def test_numbers_are_there_with_interval_and_normaliser(ordinary, tmp_path):
    page = Page(write_report(ordinary, tmp_path / "r.html", title="My run"))
    assert "My run" in page.text and "87.5 % WER" in page.text  # 7 errors in 8 words
    assert f"{100 * ordinary.wer.low:.1f} to {100 * ordinary.wer.high:.1f} %" in page.text
    assert "whisper-english" in page.text
    assert "1 substitutions (12.5 %), 1 deletions (12.5 %), 5 insertions (62.5 %)" in page.text
    assert re.search(r"6\.8 x real time.*cpu, float32", page.text, re.DOTALL)  # 13.5 s in 2 s
    assert "WER by length" in page.text and "WER by voice" in page.text


def test_page_is_well_formed_accessible_and_closed(ordinary, tmp_path):
    page = Page(write_report(ordinary, tmp_path / "r.html", audio=lambda _: tone()))
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    assert page.all("html") == [{"lang": "en"}]
    assert all(len(image["alt"]) > 20 for image in page.all("img")) and page.all("img")
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    assert all(player["aria-label"] for player in page.all("audio"))
    for _, attributes in page.elements:
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in page.source and "@import" not in page.source
    assert "prefers-color-scheme: dark" in page.source and "width=device-width" in page.source
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'")


def test_worst_clips_come_first_and_good_ones_not_at_all(ordinary, tmp_path):
    text = Page(write_report(ordinary, tmp_path / "r.html")).text
    clips = text[text.index("Worst clips") :]
    places = [clips.index(f"· {name}") for name in ("noise", "loop", "half")]
    assert places == sorted(places)
    assert "· fine" not in clips and "3 of the 3 clips" in clips


def test_alignment_is_marked_by_more_than_colour(ordinary, tmp_path):
    source = write_report(ordinary, tmp_path / "r.html").read_text()
    half = re.search(r"· half.*?</article>", source, re.DOTALL).group()
    plain = re.sub(r'<span class="hidden">.*?</span>', "", half)
    assert (
        'the <span class="sub"><del>quick</del> <ins>quit</ins></span> fox <del>ran</del>' in plain
    )
    assert '<span class="hidden">not </span>quick' in half


def test_players_hold_the_sound(ordinary, tmp_path):
    lengths = {"half": 1.0, "loop": 2.0, "noise": 3.0}
    path = write_report(ordinary, tmp_path / "r.html", audio=lambda name: tone(lengths[name]))
    players = Page(path).all("audio")
    assert [p["aria-label"] for p in players] == ["clip noise", "clip loop", "clip half"]
    for player, seconds in zip(players, (3, 2, 1), strict=True):
        kind, sound = player["src"].split(";base64,")
        assert kind == "data:audio/mpeg"
        heard = load_audio(base64.b64decode(sound))
        assert abs(len(heard) / 16_000 - seconds) < 0.15
        assert heard.abs().max() > 0.2


def test_a_clip_without_sound_says_why_and_loses_nothing_else(ordinary, tmp_path):
    def audio(name: str) -> torch.Tensor:
        if name == "loop":
            raise ValueError("loop.wav is <torn>")
        return tone()

    page = Page(write_report(ordinary, tmp_path / "r.html", audio=audio))
    assert len(page.all("audio")) == 2 and "No sound: loop.wav is <torn>" in page.text


def test_file_stays_small(tmp_path):
    noise = torch.rand(16_000 * 200, generator=torch.Generator().manual_seed(0)) - 0.5
    rows = [Row(f"{i}", "a b", "c " * 2000, 30.0, {"voice": f"v{i}"}) for i in range(6)]
    path = write_report(result_of(*rows), tmp_path / "r.html", audio=lambda _: noise)
    page = Page(path)
    assert 3_000_000 < path.stat().st_size < 5_000_000
    assert 1 < len(page.all("audio")) < 6 and "to keep this file small" in page.text


def test_many_clips_and_groups_are_cut_and_said_to_be(tmp_path):
    rows = [Row(f"{i}", "a b", "a c", 3.0, {"voice": f"v{i}"}) for i in range(25)]
    text = Page(write_report(result_of(*rows), tmp_path / "r.html", max_clips=4)).text
    assert "4 of the 25 clips" in text and text.count("Reference:") == 4
    assert "the 20 worst of 25" in text and text.count("1 errors in 2 words") == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, tmp_path):
    rows = [
        Row(f"{text} {i}", f"{text} said", f"heard {text}", 1.0 + i, {text: f"{text}{i}"})
        for i in range(3)
    ]
    path = write_report(
        result_of(*rows), tmp_path / "r.html", title=text, audio=lambda _: tone(0.1)
    )
    page = Page(path)
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    if text.isprintable():
        assert page.text.count(text) >= 6


def test_a_path_that_can_not_be_written_is_named(ordinary, tmp_path):
    with pytest.raises(ValueError, match=r"cannot write the report .*nowhere"):
        write_report(ordinary, tmp_path / "nowhere" / "r.html")


def test_a_full_disk_leaves_the_old_report(ordinary, tmp_path, monkeypatch):
    def half(path, text, *_, **__):
        path.write_bytes(text.encode()[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    (tmp_path / "r.html").write_bytes(b"old")
    with pytest.raises(ValueError, match="cannot write the report"):
        write_report(ordinary, tmp_path / "r.html")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"r.html": b"old"}


def test_baseline_is_compared(tmp_path):
    said = [f"word number {i}" for i in range(30)]
    good = result_of(*(Row(str(i), s, s, 1.0) for i, s in enumerate(said)))
    bad = result_of(*(Row(str(i), s, "word", 1.0) for i, s in enumerate(said)))
    text = Page(write_report(good, tmp_path / "r.html", baseline=bad)).text
    assert "This run is better" in text and "-66.7 points" in text and "100.0 %" in text
    assert "This run is worse" in Page(write_report(bad, tmp_path / "r.html", baseline=good)).text
    same = Page(write_report(bad, tmp_path / "r.html", baseline=bad)).text
    assert "can't tell the two apart" in same
    with pytest.raises(ValueError, match="not measured on the same rows"):
        write_report(good, tmp_path / "r.html", baseline=result_of(Row("x", "a", "a", 1.0)))


@pytest.mark.parametrize(
    "rows", [[Row("a", "", "", 1.0)], [Row("a", "", "boo", 1.0)], [Row("a", "yes", "yes", 1.0)]]
)
def test_nearly_empty_results(rows, tmp_path):
    page = Page(write_report(result_of(*rows, seconds_elapsed=None), tmp_path / "r.html"))
    assert page.open == [] and "not timed" in page.text and "nan" not in page.text.lower()


def test_report_of_a_result_read_from_json_is_the_same(ordinary, tmp_path):
    (tmp_path / "r.json").write_text(ordinary.to_json())
    again = write_report(Result.from_json(tmp_path / "r.json"), tmp_path / "b.html")
    assert again.read_bytes() == write_report(ordinary, tmp_path / "a.html").read_bytes()


def test_charts_are_pngs_in_two_inks(ordinary, tmp_path):
    page = Page(write_report(ordinary, tmp_path / "r.html"))
    light, dark = page.all("img"), page.all("source")
    assert len(light) == len(dark) == 4  # kinds, spread, length, voice
    for one, other in zip(light, dark, strict=True):
        assert one["src"] != other["srcset"]
        for picture in (one["src"], other["srcset"]):
            assert base64.b64decode(picture.split(",")[1]).startswith(b"\x89PNG")


def test_sound_is_mono_at_16_khz(ordinary, tmp_path):
    page = Page(write_report(ordinary, tmp_path / "r.html", audio=lambda _: 5 * tone()))  # too loud
    sound = io.BytesIO(base64.b64decode(page.all("audio")[0]["src"].split(",")[1]))
    info = soundfile.info(sound)
    assert (info.samplerate, info.channels, info.format) == (16_000, 1, "MP3")
