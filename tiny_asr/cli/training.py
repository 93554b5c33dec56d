"""The commands `tiny-asr train`, `evaluate` and `benchmark`.

Every option of `train` is None unless it was given, so that it overrides `run.yaml` exactly where
the user said something; settings that have no option are set in that file.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiny_asr.cli import options

if TYPE_CHECKING:
    from tiny_asr.evaluation.score import Comparison, Rate, Result
    from tiny_asr.training.settings import TrainingSettings

Compile = Annotated[
    bool | None, typer.Option("--compile", help="compile the layers: for long runs on a GPU")
]
Fp8 = Annotated[bool | None, typer.Option("--fp8", help="8-bit frozen matrices: for an H100")]
WORST = 3  # groups of each field in the table; the report and the JSON have all
NAMED = 5  # clips that are left out, where no file names all


def train(
    data: options.Data = None,
    out: Annotated[str | None, typer.Option(help="the run's folder: model, log, run.yaml")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue the run in --out, with its run.yaml")
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="a run.yaml, or medium or full: bundled ones; options replace settings"),
    ] = None,
    eval_data: Annotated[str | None, typer.Option(help="to choose the best model by")] = None,
    noise_data: Annotated[str | None, typer.Option(help="clips in which nobody speaks")] = None,
    cache: Annotated[str | None, typer.Option(help="folder for encoder outputs: faster")] = None,
    cache_versions: Annotated[
        int | None, typer.Option(help="augmented versions of each clip to cache")
    ] = None,
    max_utterances: Annotated[int | None, typer.Option(help="clips seen in all")] = None,
    limit: options.Limit = None,
    learning_rate: Annotated[float | None, typer.Option(help="the highest")] = None,
    batch_seconds: options.BatchSeconds = None,
    accumulation: Annotated[int | None, typer.Option(help="batches in one step")] = None,
    warmup_utterances: Annotated[
        int | None, typer.Option(help="clips until the rate is at its highest (1000)")
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option(help="clips from one evaluation to the next (5000)")
    ] = None,
    adapter_rank: Annotated[
        int | None, typer.Option(help="train an adapter on the language model too: 8 to 64")
    ] = None,
    adapter_learning_rate: Annotated[float | None, typer.Option(help="the adapter's")] = None,
    freeze_projector: Annotated[
        bool | None, typer.Option("--freeze-projector", help="train the adapter alone")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="stop after so many evaluations without a better one")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of weights, order and augmentation")] = None,
    fresh: Annotated[
        bool | None, typer.Option("--fresh", help="a new projector even if the model has one")
    ] = None,
    projector: Annotated[
        str | None, typer.Option(help="another kind, which starts fresh: swiglu, convolution, ...")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="where the log goes too: tensorboard, trackio, wandb, ...")
    ] = None,
    split: options.Split = None,
    audio_column: options.AudioColumn = None,
    text_column: options.TextColumn = None,
    text: options.Text = None,
    model: options.Model = None,
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    compile: Compile = None,
    fp8: Fp8 = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="only estimate: memory, hours and dollars on some GPUs")
    ] = False,
    gpus: Annotated[
        Path | None, typer.Option(help="with --plan: your own table of GPUs and prices, as CSV")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train the projector; Ctrl-C saves first, and --resume continues."""
    not_settings = ("resume", "config", "plan", "gpus", "as_json")
    given = {k: v for k, v in locals().items() if v is not None and k not in not_settings}
    given.pop("not_settings")
    if "track" in given:
        given["trackers"] = options.words_of(given.pop("track"))
    if gpus is not None and not plan:
        raise ValueError(
            f"--gpus {gpus} came without --plan; expected both, since a run takes the GPUs that "
            "there are: add --plan, or leave --gpus out"
        )
    if plan:
        _show_plan(given, config, resume, gpus, as_json)
        return
    settings = _settings(given, config, resume)
    options.check_target("--out", settings.out, folder=True)
    if settings.cache is not None and not Path(settings.cache).is_dir():  # it may be full already
        options.check_target("--cache", settings.cache, folder=True)
    from tiny_asr.training.checkpoint import has_checkpoint
    from tiny_asr.training.trainer import Trainer

    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    try:
        trainer = Trainer(settings, say=say)
        state = trainer.train(resume)
    except (KeyboardInterrupt, SystemExit) as stop:
        saved = "continue with --resume" if has_checkpoint(Path(settings.out)) else "nothing saved"
        print(options.error_line(f"stopped; {saved}"), file=sys.stderr)
        raise typer.Exit(getattr(stop, "code", 130)) from None  # 143 after SIGTERM
    if not trainer.accelerator.is_main_process:
        return
    if as_json:
        report = {name: vars(state)[name] for name in ("step", "utterances", "best", "skipped")}
        print(json.dumps({"out": settings.out, **report, "seconds": state.seconds}, indent=2))
    else:
        print(f"done: the model is in {settings.out}, and run.yaml there repeats the run")


def _show_plan(
    given: dict, config: Path | None, resume: bool, gpus: Path | None, as_json: bool
) -> None:
    """Without data named, the plan is for clips as long as LibriSpeech's."""
    from tiny_asr.bench.plan import GPUS, describe, plan, read_gpus

    cards = read_gpus(gpus or GPUS)
    if config is None:
        given = {"data": "openslr/librispeech_asr:clean", "out": "runs/plan"} | given
    made = plan(_settings(given, config, resume), cards)
    print(json.dumps(made, indent=2) if as_json else describe(made))


def _settings(given: dict, config: Path | None, resume: bool) -> "TrainingSettings":
    """The settings in `config`, or of the run to resume, or the defaults; `given` replaces them."""
    from tiny_asr.hub import PAIRS, data_dir
    from tiny_asr.training.settings import TrainingSettings

    if config is None and resume and (Path(given.get("out", "")) / "run.yaml").is_file():
        config = Path(given["out"]) / "run.yaml"
    if config is None and resume and "data" not in given and "out" in given:
        raise ValueError(
            f"--resume came, but {given['out']} holds no run.yaml; expected the folder of a run: "
            "check --out"
        )
    if config is not None:
        bundled = data_dir() / "models" / f"{config}-asr" / "from_zero.yaml"
        config = bundled if str(config) in PAIRS and not config.exists() else config
        return TrainingSettings.load(config, **given)
    if missing := [f"--{name}" for name in ("data", "out") if name not in given]:
        raise ValueError(
            f"{' and '.join(missing)} did not come; expected both --data and --out, or a run.yaml "
            "that has them: add --config"
        )
    return TrainingSettings(**given)


def evaluate(
    data: options.Data = None,
    model: options.Model = "tiny",
    limit: options.Limit = None,
    beams: options.Beams = 1,
    hints: options.Hints = "",
    ctc_weight: Annotated[
        float | None,
        typer.Option(
            min=0, help="of CTC beside the decoder; 0: without it", callback=options.finite
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="write an HTML report, with sound")] = None,
    no_speech: Annotated[
        bool,
        typer.Option("--no-speech", help="nobody speaks in --data: every text should be empty"),
    ] = False,
    noise_data: Annotated[
        str | None, typer.Option(help="noise to mix into every clip, at --snr-db")
    ] = None,
    snr_db: Annotated[
        float | None,
        typer.Option(help="how much louder the clip is, in dB", callback=options.finite),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="JSON of another model on the same clips, to compare with")
    ] = None,
    shuffled_audio: Annotated[
        bool, typer.Option("--shuffled-audio", help="control: each clip gets another one's sound")
    ] = False,
    normaliser: Annotated[
        str | None,
        typer.Option(help="english, basic or none; by default english where the text is plain"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="write the JSON to this file too")] = None,
    batch_seconds: options.BatchSeconds = 120.0,
    split: options.Split = None,
    audio_column: options.AudioColumn = "audio",
    text_column: options.TextColumn = "text",
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure the word error rate of a model on a data set, and how often it writes nothing."""
    if data is None:
        raise ValueError("--data did not come; expected a parquet file, a folder or a hub id")
    if (noise_data is None) != (snr_db is None):
        raise ValueError("--noise-data and --snr-db belong together, one of them came; give both")
    options.check_target("--report", report)
    options.check_target("--out", out)
    if None not in (out, report) and out.resolve() == report.resolve():
        raise ValueError(f"--out and --report are both {out}; expected two files: rename one")
    if report is not None and not options.can_draw():
        raise ValueError(f"--report has charts: {options.NO_PICTURES}")
    from tqdm import tqdm

    from tiny_asr.config import ASRConfig
    from tiny_asr.data.dataset import load_data, noise_utterances, write_left_out
    from tiny_asr.evaluation.normalisers import FOR_TEXT, check_normaliser
    from tiny_asr.evaluation.score import Result, check_baseline
    from tiny_asr.evaluation.score import evaluate as measure
    from tiny_asr.files.writing import write_text
    from tiny_asr.search.writing import set_ctc_weight

    reference = None if baseline is None else Result.from_json(baseline)
    text = ASRConfig.from_pretrained(model, encoder=encoder, decoder=decoder).text
    normaliser = check_normaliser(normaliser or FOR_TEXT[text])
    columns = {"audio_column": audio_column, "text_column": text_column, "text": text}
    load = noise_utterances if no_speech else load_data
    clips = load(data, split=split, limit=limit, max_seconds=None, **columns)
    if reference is not None:
        texts = {clip.id: clip.text for clip in clips}
        left_out = sum(reference.dropped.values())
        check_baseline(texts, reference, left_out, normaliser)
    aside = partial(print, file=sys.stderr if as_json else sys.stdout)
    noise = [] if noise_data is None else noise_utterances(noise_data).load_all(aside)
    recogniser, choice = options.load_model(model, encoder, decoder, device, dtype)
    if ctc_weight is not None:
        set_ctc_weight(recogniser.decoder, ctc_weight)
    with tqdm(total=len(clips), unit="clip", disable=not sys.stderr.isatty()) as bar:
        lines = now_and_then(partial(print, file=sys.stderr, flush=True))
        result = measure(
            recogniser,
            clips,
            batch_seconds=batch_seconds,
            shuffled_audio=shuffled_audio,
            noise=noise,
            snr_db=snr_db,
            normaliser=normaliser,
            progress=lines if bar.disable else lambda done, total: bar.update(done - bar.n),
            beams=beams,
            hints=options.words_of(hints),
        )
    result = replace(result, dtype=options.place(choice)["dtype"])  # no model knows of its int8
    unused = [f"left out: {clip.detail}" for clip in clips.left_out]
    try:
        if out is not None:
            write_text(out, result.to_json() + "\n")
            names = out.with_name(out.name.removesuffix(".json") + ".left_out.csv")
            names.unlink(missing_ok=True)
            write_left_out(names, [clips])
            unused = [f"left out: {len(unused)} clips, named in {names}"] if unused else []
    except OSError as error:
        raise ValueError(f"cannot write {out} ({error.strerror}): choose another --out") from error
    finally:  # whatever happened to the file
        print(result.to_json() if as_json else _table(result, recogniser.untrained))
    more = len(unused) - NAMED
    for line in unused[:NAMED] + [f"left out: {more} more; --out FILE names all"] * (more > 0):
        aside(options.printable(line))
    if reference is not None:
        aside(_difference(result, reference))
    if report is not None:
        from tiny_asr.evaluation.report import write_report

        loaders = {clip.id: clip.load for clip in clips}
        title = f"{recogniser.config.name_or_path or model} on {clips.name}"
        about = {"title": title, "baseline": reference, "untrained": recogniser.untrained}
        write_report(result, report, audio=lambda i: loaders[i](max_seconds=None), **about)
        aside(f"wrote {report}")


def now_and_then(
    say: Callable[[str], None], now: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """A `progress(done, total)` for where no bar can be drawn: a line for each tenth, but none
    within 5 s of the last; and one after 30 s in any case. `now` is in seconds."""
    start = last = now()
    tenth = 0

    def progress(done: int, total: int) -> None:
        nonlocal last, tenth
        quiet = now() - last
        if quiet >= 30 or (quiet >= 5 and 10 * done // total > tenth):
            last, tenth = now(), 10 * done // total
            say(f"{done} of {total} clips, {done / total:.0%}, {last - start:.0f} s")

    return progress


def _interval(rate: "Rate | Comparison", form: str = ".1f") -> str:
    if rate.low is None:
        return "no interval"
    return f"95 % interval {100 * rate.low:{form}} to {100 * rate.high:{form}}"


def _table(result: "Result", untrained: tuple[str, ...]) -> str:
    """A result for a terminal of 80 columns."""
    from tiny_asr.evaluation.normalisers import is_unspaced
    from tiny_asr.evaluation.score import percent

    r, words = result, max(1, result.words)
    edits = (r.substitutions, r.deletions, r.insertions)
    shares = " / ".join(percent(count / words) for count in edits)
    empty = f"{percent(r.empty.value)} of {r.utterances} clips   {_interval(r.empty)}"
    empty = ("empty", empty)
    lines = [
        ("WER", f"{percent(r.wer.value)}   {_interval(r.wer)}"),
        ("normaliser", r.normalizer),
        ("CER", percent(r.cer)),
        ("S / D / I", f"{' / '.join(map(str, edits))}   {shares}"),
        ("rows at 100 %", f"{percent(r.rows_at_100)} of {r.utterances} clips, {r.words} words"),
        empty,
        ("shuffled", f"{percent(r.wer_shuffled)} WER against other clips' references"),
        ("RTFx", f"{r.rtfx:.1f}   batches of at most {r.batch_seconds:g} s, {r.dtype}"),
        ("device", r.device),
    ]
    if not r.words:  # nobody speaks
        heard = ("heard", f"{r.insertions} words where nobody speaks")
        lines = [empty, heard, lines[1], *lines[-2:]]
    if r.noise_snr_db is not None:
        lines.insert(1, ("", f"noise in every clip, at {r.noise_snr_db:g} dB SNR"))
    if r.shuffled_audio:
        lines.insert(1, ("", "control: every clip had another one's sound"))
    if r.beams != 1 or r.hints or r.ctc_weight:
        ctc = f", CTC with weight {r.ctc_weight:g}" if r.ctc_weight else ""
        lines.insert(1, ("", f"beams: {r.beams}, hints: {r.hints}{ctc}"))
    if is_unspaced([row.reference for row in r.rows]):
        lines.insert(2, ("", "no spaces between words: each character counts as one"))
    for name, values in r.groups.items():
        rates = {value: group.wer if r.words else group.empty for value, group in values.items()}
        known = [value for value, rate in rates.items() if rate.value is not None]
        known.sort(key=lambda value: rates[value].value, reverse=r.words > 0)  # the worst first
        for number, value in enumerate(known[:WORST] if len(known) > 1 else []):
            interval = _interval(rates[value]) if r.words else "empty"
            label = f"worst {name}"[:16] if number == 0 else ""
            text = f"{value[:12]:<12} {percent(rates[value].value):>8}   {interval}"
            lines.append((label, f"{text}, {values[value].utterances} clips"))
    for reason, count in r.dropped.items():
        lines.append(("left out", f"{count}: {reason}"))
    if untrained:
        lines.append(("untrained", f"{', '.join(untrained)}: its text means nothing"))
    return "\n".join(f"{label:<17}{text}".rstrip() for label, text in lines)


def _difference(result: "Result", baseline: "Result") -> str:
    from tiny_asr.evaluation.score import paired_bootstrap, percent

    gap = paired_bootstrap(result, baseline)
    points = f"{100 * gap.difference:+.1f} points of {percent(baseline.wer.value)}"
    return f"{'to the baseline':<17}{points}   {_interval(gap, '+.1f')}"


def benchmark(
    model: options.Model = "tiny",
    data: options.Data = None,
    utterances: Annotated[int, typer.Option(help="clips to use, and in each measured epoch")] = 64,
    mix: Annotated[
        str | None, typer.Option(help="clips: short, long (the default of full)")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="the model's sizes; nothing is fetched")
    ] = False,
    compile: Compile = None,
    fp8: Fp8 = None,
    workers: Annotated[int, typer.Option(help="threads that decode audio")] = 2,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="only: training on so many against training on one")
    ] = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="with --gpus: train on stored encoder outputs")
    ] = False,
    rounds: Annotated[int, typer.Option(help="repetitions; medians are shown")] = 3,
    batch_seconds: options.BatchSeconds = 60.0,
    encoder: options.Encoder = None,
    decoder: options.Decoder = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Time training, the cache and transcription on this machine."""
    from tiny_asr.bench.benchmark import measure, measure_gpus

    if cached and gpus is None:
        raise ValueError(
            "--cached came without --gpus; expected both: one GPU's training is measured with and "
            "without a cache anyway"
        )
    how = {"utterances": utterances, "random_weights": random_weights, "workers": workers}
    how |= {"mix": mix or ("long" if model == "full" else "short"), "compile": bool(compile)}
    how |= {"fp8": bool(fp8)}
    how |= {"encoder": encoder, "decoder": decoder, "device": device, "dtype": dtype}
    how |= {"batch_seconds": batch_seconds, "say": partial(print, file=sys.stderr, flush=True)}
    if gpus is None:
        result, shown = measure(model, data, rounds=rounds, **how), _speeds
    else:
        result, shown = measure_gpus(gpus, model, cached=cached, **how), _gain
    print(json.dumps(result, indent=2) if as_json else shown(result))


def _gain(r: dict) -> str:
    """Training on several against one, for a terminal."""
    count = r["processes"]
    return (
        f"{r['gpu']}, torch {r['torch']}, batches of {r['batch_seconds_each']:g} s each\n"
        f"{'cached ' * r['cached']}training on 1: {r['per_second_1']:.1f} utterances/s, "
        f"on {count}: {r[f'per_second_{count}']:.1f}, which is {r['gain']:.2f} times as many"
    )


def _speeds(r: dict) -> str:
    """A benchmark for a terminal of 80 columns."""
    from tiny_asr.bench.stages import describe
    from tiny_asr.evaluation.score import percent

    shares = [percent(r[f"share_outside_models_{name}"]) for name in ("uncached", "cached")]
    million = "   ".join(f"{part} {count / 1e6:.2f} M" for part, count in r["parameters"].items())
    lines = [
        ("machine", f"{r['machine']}, torch {r['torch']}"),
        ("device", f"{r['device']}, {r['dtype']}, {r['torch_threads']} torch threads"),
        ("model", f"{r['model']}   {million}"),
        ("data", f"{r['utterances']} clips of {r['mean_seconds']:.1f} s on average: {r['data']}"),
        ("", f"batches of at most {r['batch_seconds']:g} s, medians of {r['rounds']} rounds"),
        ("training", f"{r['train_uncached_per_second']:8.1f} utterances/s without a cache"),
        ("", f"{r['train_cached_per_second']:8.1f} utterances/s with a cache"),
        ("encoding", f"{r['decode_mel_encoder_per_second']:8.1f} utterances/s decoded and encoded"),
        ("cache", f"{r['cache_read_per_second']:8.1f} utterances/s read, "
                  f"{r['read_speedup']:.0f} times as fast"),
        ("gain", f"{r['gain_measured']:8.2f} measured: training with a cache against without"),
        ("", f"{r['gain_predicted']:8.2f} predicted from the parts by Amdahl's law"),
        ("outside models", f"{shares[0]:>8} of training without a cache, {shares[1]} with one"),
    ]  # fmt: skip
    ways = {"batch_1": "batch 1", "batch_16": "batch 16", "batch_1_int8": "batch 1, --dtype int8"}
    rates = [f"{r[f'rtfx_{w}']:8.1f} RTFx at {at}" for w, at in ways.items() if f"rtfx_{w}" in r]
    lines += zip(("transcription", "", ""), rates, strict=False)
    tera = f"{r['matmul_tflops']:.3g} TFLOP/s, copies {r['copy_tb_per_second']:.2g} TB/s"
    lines.append(("ceilings", f"matrix products {tera}"))
    each = f"clips of {r['stage_seconds']:g} s, which write {r['stage_tokens']} tokens each"
    lines.append(("stages", f"of {each}"))
    lines += [("", describe(row)) for row in r["stages"][2:]]
    if r["untrained"]:
        parts = ", ".join(r["untrained"])
        lines.append(("untrained", f"{parts}: texts run to their limit, which slows RTFx"))
    return "\n".join(f"{label:<17}{text}" for label, text in lines)
