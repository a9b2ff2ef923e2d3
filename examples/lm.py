r"""A language model: a small transformer that learns to write Python, byte by byte.

python -m examples.lm

A million parameters and a million and a half bytes of Python's standard library: five minutes on
two CPU cores. Expect 2.54 bits per byte of what is held out, and 2.57 with --optimizer adam: one
seed each, which ranks nothing (benchmarks/records/2026-11-27-lm, Python 3.11).

The same with 85 million parameters, for a GPU, which was not run yet:

python -m examples.lm --width 768 --depth 12 --heads 12 --length 512 --batch-size 64 \
    --dtype bfloat16 --epochs 10 --warmup-epochs 1 --epoch-tokens 4000000 --data-dir DIR

An encoder, pretrained as BERT is: it predicts 15% of the bytes, most of them masked, from the text
on both sides; the last epoch has longer windows. Two minutes on one CPU core; expect 2.38 bits per
masked byte, and 2.47 with --optimizer adam (one seed each, the same records):

python -m examples.lm --objective masked --width 64 --depth 3 --length 64 --long-length 128 \
    --batch-size 16 --epochs 4 --epoch-tokens 300000
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jax

from examples import training
from examples.results import reports
from examples.results.reports import ReportedMetric
from examples.tasks.text import corpus, task
from examples.training import command, distributed
from examples.training.limits import AT_LEAST_1, BETWEEN_0_AND_1, default
from examples.training.options import Options, in_order_of_use

OBJECTIVES = {"causal": task.Text, "masked": task.MaskedText}
REPORTED = {
    "held-out loss, nats per {unit}": ReportedMetric("held_out_loss", digits=3),
    "held-out bits per {unit}": ReportedMetric("bits_per_byte", digits=3),
    "training loss, nats per {unit}": ReportedMetric("train_loss", digits=3),
    "median margin": ReportedMetric("margin_p50"),
}


@in_order_of_use
@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Options):
    """Trains a language model and reports its loss on held-out text."""

    data_dir: Path | None = None
    """File, or folder of files, with text of your own.
    By default the standard library of the Python that runs this, some 10 MB."""
    held_out_share: Annotated[float, BETWEEN_0_AND_1] = 0.02
    """Share of the text to evaluate on: whole files, always the same ones."""
    epoch_tokens: int | None = 500_000
    """Training tokens per epoch, sampled anew in each without repetition; None: all there are.
    What does not fill a batch, of --batch-size windows of --length tokens, is left out."""
    epochs: int = 3
    """How many of these epochs; after each the model is evaluated, and a checkpoint may be kept."""
    warmup_epochs: float = 0.5
    """Epochs in which the learning rate rises to its peak; then it falls by its schedule."""
    learning_rate: float = 3e-3
    """Peak of the learning rate: what to tune first."""
    batch_size: int = 32
    """Windows of text per update of the weights."""
    seeds: int = 1
    """How many seeds to train, one after the other in one program."""
    objective: Literal["causal", "masked"] = "causal"
    """causal: the next byte, from those before it.
    masked: 15% of the bytes, most of them masked, from those on both sides, as BERT is trained;
    losses are of these bytes alone."""
    length: Annotated[int, AT_LEAST_1] = 128
    """Context length in tokens, which are bytes."""
    long_length: int | None = None
    """Context length in the last --long-epochs, a multiple of --length: fewer windows in a batch
    and as many tokens, and the learning rate goes on. By default it stays the same."""
    long_epochs: int = 1
    """How many epochs have windows of --long-length."""
    width: Annotated[int, AT_LEAST_1] = 128
    """Width of the residual stream, a multiple of twice the heads."""
    depth: Annotated[int, AT_LEAST_1] = 5
    """Number of blocks, each of attention and an MLP."""
    heads: Annotated[int, AT_LEAST_1] = 4
    """Attention heads per block."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Precision of computation; weights are float32. On an accelerator bfloat16 is faster."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.long_length is None and self.long_epochs != default(self, "long_epochs"):
            raise ValueError(
                f"long_epochs={self.long_epochs} with long_length=None: no window gets longer; give"
                f" long_length, too, or leave it at {default(self, 'long_epochs')}."
            )
        if not 0 < self.long_epochs <= self.epochs:
            raise ValueError(
                f"long_epochs={self.long_epochs} must lie between 1 and epochs={self.epochs}."
            )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} must be a multiple of {2 * self.heads}, twice the"
                f" heads={self.heads}: rotary positions turn pairs of features."
            )


def main(config: Config) -> None:
    """Train, and report the last epoch."""
    text = corpus.load(config.data_dir, config.held_out_share)
    lm = make_task(config, text)
    source = lengthening(config, lm)
    result = training.train(lm, config, title=config.optimizer, source=source)
    if distributed.is_first():
        report(config, text, lm, result)


def load(config: Config) -> task.Text:
    """Read the text of a run, and put it on the device."""
    return make_task(config, corpus.load(config.data_dir, config.held_out_share))


def make_task(config: Config, text: corpus.Corpus) -> task.Text:
    """Put the text on the device, and say how it is trained on."""
    return task.make_task(
        text,
        length=config.length,
        batch_size=config.batch_size,
        epoch_tokens=config.epoch_tokens,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dtype=config.dtype,
        objective=OBJECTIVES[config.objective],
    )


def lengthening(config: Config, lm: task.Text) -> task.Lengthening | None:
    """Return where the data come from if the last epochs have longer windows."""
    if config.long_length is None:
        return None
    return task.lengthen(lm, config.long_length, config.epochs - config.long_epochs)


def report(config: Config, text: corpus.Corpus, lm: task.Text, result: training.Result) -> None:
    """Print the table, and append the records unless they are there."""
    shown = {title.format(unit=lm.unit): of for title, of in REPORTED.items()}
    parameters = sum(leaf[0].size for leaf in jax.tree.leaves(result.state.params))
    tokens = config.epochs * lm.steps_per_epoch * lm.batch_size * lm.length
    ending = (
        f"{text.files} files: {len(text.train):,} bytes to train on, {len(text.held_out):,} held"
        f" out, checksum {text.checksum}"
        f"\n{parameters:,} parameters, {tokens:,} tokens, of {config.seeds} seed(s),"
        f" {result.wall_s:.0f} s: {config.seeds * tokens / result.wall_s:,.0f} tokens a second,"
        " compilation and evaluation included"
    )
    reports.report({"example": "lm", **about(text)}, config, result, shown, ending=ending)


def about(text: corpus.Corpus) -> dict[str, Any]:
    """Return what a record says of the text."""
    return {"corpus": {"files": text.files, "checksum": text.checksum}}


if __name__ == "__main__":
    command.run(main, command.parser(Config, "examples.lm", __doc__))
