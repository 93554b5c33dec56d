"""The command line: `tiny-asr info | trace | transcribe | demo | train | evaluate | ...`.

There is no logic here that the Python API lacks: a command reads options, calls the package and
prints. What a user can get wrong arrives as a ValueError and leaves as one line on stderr and exit
status 2; any other exception is a bug and keeps its traceback. Heavy libraries are imported inside
the commands, so that help comes at once.
"""

import json
import logging
import os
import platform
import sys
import time
import warnings
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tiny_asr import __version__
from tiny_asr.cli import listening, options, serving
from tiny_asr.cli import training as cli_training
from tiny_asr.cli.importing import import_

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A speech recogniser to read, train and teach with.",
)

UsageError = typer.BadParameter.__base__  # click's, or that of the copy inside a newer typer


@app.command()
def info(
    model: options.Model = "",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Show versions, the device, and which models are here; with --model, one in detail."""
    from tiny_asr.config import ASRConfig
    from tiny_asr.device import choose_device
    from tiny_asr.hub import PAIRS, data_dir

    choice = choose_device(device, dtype)
    names = (model or "tiny",) if model or encoder or decoder else PAIRS
    configs = [ASRConfig.from_pretrained(name, encoder=encoder, decoder=decoder) for name in names]
    libraries = ("torch", "torchaudio", "transformers", "datasets")
    report = {
        "versions": {"tiny_asr": __version__, "python": platform.python_version()}
        | {library: version(library) for library in libraries},
        **options.place(choice),
        "reason": choice.reason,
        "data_dir": str(data_dir()),
        "models": {
            name: _describe(config, choice) for name, config in zip(names, configs, strict=True)
        },
    }
    print(json.dumps(report, indent=2)) if as_json else _print_info(report)


@app.command()
def trace(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="at most 30 s of sound; - is stdin")
    ] = "",
    out: Annotated[Path, typer.Option(help="folder for the pictures")] = Path("trace"),
    model: options.Model = "tiny",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Follow one clip through every stage, with pictures; without FILE, the bundled sentence."""
    from tiny_asr.audio import load_audio
    from tiny_asr.figures.trace import trace_clip
    from tiny_asr.hub import sample_clip
    from tiny_asr.shapes import SAMPLE_RATE

    import_module("tiny_asr.model")  # now, so that the seconds below are work alone
    start = time.perf_counter()
    waveform = load_audio(_source(file or str(sample_clip())))
    if draws := options.can_draw():
        options.check_target("--out", out, folder=True)
        out.mkdir(parents=True, exist_ok=True)
    else:
        warnings.warn(f"the table alone, without pictures: {options.NO_PICTURES}", stacklevel=1)
    recogniser, choice = options.load_model(model, encoder, decoder, device, dtype)
    traced = trace_clip(recogniser, waveform, SAMPLE_RATE)
    files = _draw(traced, recogniser.config.audio_downsample_rate, out) if draws else []
    seconds = time.perf_counter() - start
    if not as_json:
        print(traced)
        for name in files:
            print(f"wrote {name}")
        print(f"{seconds:.1f} s of work after imports")
        return
    stages = [
        {"stage": name, "axes": known.stage.axes, "shape": list(known.tensor.shape)}
        | {"meaning": known.stage.meaning}
        for name, known in traced.stages.items()
    ]
    report = {"model": model, "untrained": traced.untrained, **options.place(choice)}
    report |= {"stages": stages, "sizes": traced.sizes, "quiet_seconds": traced.quiet_seconds}
    report |= {"text": traced.text, "files": files, "seconds": seconds}
    print(json.dumps(report, indent=2))


@app.command()
def transcribe(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="sound of any length; - is stdin")
    ],
    stream: Annotated[bool, typer.Option("--stream", help="print one file as it is read")] = False,
    words: options.Words = False,
    form: options.Format = "text",
    beams: options.Beams = 1,
    hints: options.Hints = "",
    model: options.Model = "tiny",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Print what is said in each file, one line a file; unreadable files don't stop the others."""
    subtitles = form in ("srt", "vtt")
    if not subtitles and form != "text":
        raise ValueError(f"--format {form!r} came; expected text, srt or vtt")
    for option in ["--stream"] * stream + [f"--format {form}"] * subtitles:
        others = {"--json": as_json, "--words": words, f"{len(files)} files": len(files) > 1}
        others["--stream"] = stream and subtitles
        if with_it := [other for other, there in others.items() if there]:
            raise ValueError(
                f"{option} came with {' and '.join(with_it)}; expected one file and none of "
                f"these: leave {option} out"
            )
    from tqdm import tqdm

    from tiny_asr.audio import load_audio
    from tiny_asr.serve.formats import Transcript
    from tiny_asr.shapes import SAMPLE_RATE

    recogniser, about, results = None, {}, []
    search = {"beams": beams, "hints": options.words_of(hints)}
    for file in tqdm(files, unit="file", disable=len(files) == 1 or None):  # None: a terminal only
        try:
            waveform = load_audio(_source(file))
        except ValueError as error:
            results.append({"file": file, "error": str(error)})
            tqdm.write(options.error_line(error), file=sys.stderr)
            continue
        if recogniser is None:  # so late because a typo in a file's name should not cost minutes
            recogniser, choice = options.load_model(model, encoder, decoder, device, dtype)
            about = {"untrained": recogniser.untrained, **options.place(choice)}
        if stream:
            for piece in recogniser.stream(waveform, SAMPLE_RATE, **search):
                print(options.printable(piece), end="", flush=True)
            print()
            return
        timed = None
        text = recogniser.transcribe(waveform, SAMPLE_RATE, words=words or subtitles, **search)
        if words or subtitles:
            text, timed = text
        seconds = len(waveform) / SAMPLE_RATE
        transcript = Transcript([], seconds, "", words=timed)
        results.append({"file": file, "seconds": seconds, "text": text} | transcript.timed_words())
        if subtitles:
            print(transcript.as_plain(form), end="")
        elif not as_json:
            line = " ".join(options.printable(text).split())
            tqdm.write(line if len(files) == 1 else f"{file}: {line}", file=sys.stdout)
            for word, begin, end in timed or ():
                tqdm.write(
                    f"{begin:9.2f} {end:9.2f}  {options.printable(word).strip()}", file=sys.stdout
                )
    if as_json:
        print(json.dumps({"model": model, **about, "files": results}, indent=2))
    if any("error" in result for result in results):
        raise typer.Exit(2)


@app.command()
def demo(
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="the first free one from 7860 on")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="show the page")] = True,
    beams: options.Beams = 1,
    hints: options.Hints = "",
    model: options.Model = "tiny",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Open a page to speak to: the text as it is written, and each stage's shape."""
    if find_spec("gradio") is None or not options.can_draw():
        raise ValueError(
            "no gradio or matplotlib here, which draw the demo's page; expected the extra `demo`: "
            "pip install '.[demo]' in the clone, or `make demo` there"
        )
    from tiny_asr.demo.page import serve

    recogniser, _ = options.load_model(model, encoder, decoder, device, dtype)
    serve(recogniser, port, open_browser, beams, options.words_of(hints))


def _draw(traced, rate: int, out: Path) -> list[str]:
    """Write a trace's pictures into a folder; `rate`: encoder frames an embedding. Their names."""
    from tiny_asr.figures import plots
    from tiny_asr.shapes import SAMPLE_RATE, SAMPLES_PER_ENCODER_FRAME

    frame = SAMPLES_PER_ENCODER_FRAME / SAMPLE_RATE
    figures = {
        "encoder_output.png": plots.embeddings(
            traced["encoder_output"], "Whisper encoder output (audio embeddings)", frame
        ),
        "projector_output.png": plots.embeddings(
            traced["audio_embeddings"], "Projector output (text-like embeddings)", frame * rate
        ),
        "journey.png": plots.journey(traced),
    }
    return [str(plots.save(figure, out / name)) for name, figure in figures.items()]


def _weights(source: str) -> str:
    """What is known of a model's weights from this disk, without asking the network."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return "trained" if any(Path(source).glob("*.safetensors")) else "untrained"
    files = ("model.safetensors", "model.safetensors.index.json")
    found = any(isinstance(try_to_load_from_cache(source, file), str) for file in files)
    return "downloaded" if found else "not downloaded"


def _describe(config, choice) -> dict:
    """One model for `info`: its parts, the sizes of its axes, its prompt, its memory."""
    from tiny_asr.adapters.lora import FOLDER, about_adapter
    from tiny_asr.bench.flops import sizes
    from tiny_asr.hub import resolve_source

    adapter = about_adapter(folder) if (folder := config.saved(FOLDER)) else None
    if adapter is not None:  # as `load_model` does
        adapter["merged"] = choice.dtype.itemsize == 4
    sources = {"encoder": config.encoder, "decoder": config.decoder}
    weights = {part: _weights(resolve_source(name)) for part, name in sources.items()}
    weights["projector"] = "trained" if config.projector_weights else "untrained"
    numbers, names = sizes(config), sources | {"projector": config.projector_type}
    return {
        "parts": {
            part: {"name": names[part], "weights": weights[part], "parameters": numbers[part]}
            for part in weights
        },
        "sizes": {
            "M": config.num_mel_bins,
            "encoder_dim": config.encoder_dim,
            "audio_downsample_rate": config.audio_downsample_rate,
            "llm_dim": config.llm_dim,
            "V": config.vocab_size,
        },
        "memory_bytes": options.memory_bytes(config, choice),
        "adapter": adapter,
        "encoder_padding": config.encoder_padding,
        "prompt": config.prompt,
        "end_token": config.end_token,
    }


def _print_info(report: dict) -> None:
    """`info` for a terminal of 80 columns; details where there is one model only."""
    from tiny_asr.shapes import AXES

    versions = [f"{name} {number}" for name, number in report["versions"].items()]
    print(f"{'  '.join(versions[:2])}\n{'  '.join(versions[2:])}")
    print(f"device {report['device']}, {report['dtype']}: {report['reason']}")
    print(f"data in {report['data_dir']}\n")
    print(f"{'model':<6} {'part':<9} {'weights':<14} {'parameters':>13}  name")
    for model, described in report["models"].items():
        for part, row in described["parts"].items():
            number = f"{row['parameters']:,}".replace(",", " ")
            line = f"{part:<9} {row['weights']:<14} {number:>13}  {row['name']}".rstrip()
            print(f"{model if part == 'encoder' else '':<6} {line}")
    if len(report["models"]) > 1:
        print("\nmore about one of them: tiny-asr info --model NAME")
        return
    print()
    for axis, size in described["sizes"].items():
        print(f"{axis:<22} {size:<7} {AXES[axis]}")
    if adapter := described["adapter"]:
        text = "rank {rank}, alpha {alpha}, on {matrices} matrices, ".format_map(adapter)
        merged = "merged into the decoder" if adapter["merged"] else "beside it, in 16 bits"
        print(f"{'adapter':<22} {text}{adapter['bytes'] / 1000:.0f} kB; {merged}")
    gigabytes = described["memory_bytes"] / 1e9
    print(f"{'memory':<22} {gigabytes:.2f} GB for the parameters, and on a GPU for caches")
    print(f"{'encoder_padding':<22} {described['encoder_padding']}")
    for name in ("prompt", "end_token"):
        print(f"{name:<22} {described[name]!r}")


def _source(file: str) -> str | bytes:
    return options.stdin().read() if file == "-" else file


def _quieten() -> None:
    """Leave on stderr what a user can act on: our warnings, and not the libraries' advice."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(format="tiny-asr: %(message)s")
    warnings.formatwarning = lambda message, *_, **__: options.error_line(message) + "\n"
    warnings.simplefilter("ignore", SyntaxWarning)  # a library's, when Python first reads it
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know fewer characters


for command in (cli_training.train, cli_training.evaluate, cli_training.benchmark):
    app.command()(command)
app.command()(serving.serve)
app.command()(listening.listen)
app.command("import")(import_)


def main() -> None:
    """The entry point `tiny-asr`: runs a command; exit status 2 after a user's mistake."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - it stays open
    _quieten()
    try:
        status = app(args=sys.argv[1:] or ["--help"], prog_name="tiny-asr", standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        print(
            options.error_line(f"{error.format_message()} (see tiny-asr --help)"), file=sys.stderr
        )
        status = 2
    except ValueError as error:
        if isinstance(error, UnicodeEncodeError):
            error = f"{error.object!r} can't be used: its name is not UTF-8; rename it"
        print(options.error_line(error), file=sys.stderr)
        status = 2
    except OSError as error:
        if error.filename is not None:  # a bug: what opens a file has to say what went wrong
            raise
        print(options.error_line(f"cannot print the result ({error.strerror})"), file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries once more
        status = 2
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    sys.exit(status)
