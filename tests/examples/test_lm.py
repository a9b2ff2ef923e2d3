"""The language model: its text, its windows, what it computes, and that a stopped run goes on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples import lm, training
from examples.results import records
from examples.tasks import standard_library
from examples.tasks.text import corpus, transformer
from examples.tasks.text import task as text_task
from examples.training.options import Options
from examples.training.sharding import MeshConfig
from tests.examples.stopping import StoppedError, assert_same, stop_after
from tests.helpers import max_difference

SIZES = {"width": 8, "depth": 3, "heads": 2, "dtype": "float32"}
OPTIONS = Options(optimizer="adam_lawn", epochs=3, batch_size=2, seeds=2, free_epochs=1.5)
VOCABULARY, LENGTH = 256, 7


@pytest.fixture(scope="module")
def task():
    """Seven windows to train on, one more than three batches; five held out."""
    text = corpus.Corpus(bytes(range(7 * 4 + 2)), bytes(range(100, 121)), 1, "")
    return text_task.make_task(text, length=4, batch_size=2, epoch_tokens=None, **SIZES)


@nnx.jit
def call(model, tokens):
    return model(tokens)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Three epochs of two steps on a short text, the first one free; two blocks of width 8."""
    text = tmp_path_factory.mktemp("data") / "text"
    text.write_text("All happy families are alike. " * 40)
    return lm.Config(
        data_dir=text,
        held_out_share=0.3,
        epoch_tokens=70,
        epochs=3,
        batch_size=4,
        warmup_epochs=0,
        free_epochs=1.0,
        length=8,
        width=8,
        depth=2,
        heads=2,
    )


@pytest.fixture(scope="module")
def model(config):
    """At its start."""
    task = lm.make_task(config, corpus.load(config.data_dir, config.held_out_share))
    static = config.static_options(task.steps_per_epoch)
    tuned = jax.tree.map(lambda x: jnp.full(1, x, jnp.float32), config.hyperparameters())
    state = training.init(task, static, tuned, jnp.arange(1))
    structure = nnx.graphdef(nnx.eval_shape(lambda: make_model("float32")))
    return nnx.merge(structure, jax.tree.map(lambda x: x[0], state.params))


def make_model(dtype):
    return transformer.Transformer(
        VOCABULARY, width=8, depth=2, heads=2, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)
    )


def computing_in(dtype, weights):
    """A model with these weights."""
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: make_model(dtype))), weights)


@pytest.fixture(scope="module")
def larger(model):
    """Weights larger than at the start, so that nothing is nearly the same."""
    return computing_in("float32", jax.tree.map(lambda x: 3 * x, nnx.state(model)))


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(0, VOCABULARY, (2, LENGTH)).astype(np.int32)


class TestModel:
    """Two blocks of width 8, two heads of four features."""

    def test_it_is_the_plain_transformer(self, larger, tokens, x64):
        weights = jax.tree.map(lambda x: np.asarray(x, np.float64), nnx.state(larger))
        logits = call(computing_in("float64", weights), tokens)
        assert logits.dtype == jnp.float64
        expected = plain_logits(nnx.to_pure_dict(weights), tokens)
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(logits, expected, rtol=1e-9)

    @pytest.mark.parametrize("place", [1, LENGTH - 1])
    def test_a_later_token_changes_nothing_before_it(self, larger, tokens, place):
        other = tokens.copy()
        other[0, place] = (tokens[0, place] + 1) % VOCABULARY
        before, after = np.asarray(call(larger, tokens)), np.asarray(call(larger, other))
        np.testing.assert_array_equal(before[0, :place], after[0, :place])
        # All that follow see it, and the other text does not.
        assert (np.abs(before - after)[0, place:].max(axis=-1) > 1e-3).all()
        np.testing.assert_array_equal(before[1], after[1])

    def test_attention_sees_how_far_and_not_where(self):
        rng = np.random.default_rng(1)
        q, k = rng.normal(size=(2, 5, 2, 6)).astype(np.float32)
        turn = jax.jit(transformer.rotate)
        near, far, stretched = np.arange(5), 100 + np.arange(5), 2 * np.arange(5)
        scores = lambda places: np.einsum("thf,shf->hts", turn(q, places), turn(k, places))
        np.testing.assert_allclose(scores(near), scores(far), atol=1e-4)
        assert np.abs(scores(near) - scores(stretched)).max() > 0.1
        lengths = lambda x: np.linalg.norm(x, axis=-1)
        np.testing.assert_allclose(lengths(turn(k, far)), lengths(k), rtol=1e-5)

    def test_at_the_start_all_tokens_are_about_as_likely(self, model, tokens):
        logits = np.asarray(call(model, tokens), np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        loss = -np.mean(np.log(np.take_along_axis(shares, tokens[..., None], axis=-1)))
        np.testing.assert_allclose(loss, np.log(VOCABULARY), atol=0.2)
        assert 0.1 < logits.std() < 0.5

    def test_bfloat16_is_close_and_its_weights_and_logits_are_float32(self, model, tokens):
        fresh = nnx.eval_shape(lambda: make_model("bfloat16"))
        assert {x.dtype for x in jax.tree.leaves(nnx.state(fresh))} == {jnp.dtype("float32")}
        logits = call(computing_in("bfloat16", nnx.state(model)), tokens)
        assert logits.dtype == jnp.float32
        expected = np.asarray(call(model, tokens))
        np.testing.assert_allclose(logits, expected, atol=0.03)
        assert (np.asarray(logits) != expected).mean() > 0.9

    def test_a_million_parameters_by_default(self):
        config = lm.Config()
        text = corpus.Corpus(bytes(9000), bytes(9000), 1, "")
        default = lm.make_task(dataclasses.replace(config, epoch_tokens=None), text)
        shapes = nnx.state(nnx.eval_shape(lambda: default.model(nnx.Rngs(0))), nnx.Param)
        blocks = config.depth * (12 * config.width**2 + 2 * config.width)
        ends = 2 * 256 * config.width + config.width
        assert sum(x.size for x in jax.tree.leaves(shapes)) == blocks + ends == 1_049_984


def plain_logits(weights, tokens):
    """In NumPy: one text, one block, one head, one token after the other."""
    rms = lambda x: x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    blocks, (_, length) = weights["blocks"], tokens.shape
    logits = []
    for text in tokens:
        x = weights["embedding"]["embedding"][text]
        for i in range(2):
            kernels = {name: leaf["kernel"][i] for name, leaf in blocks["attention"].items()}
            normed = rms(x) * blocks["attention_norm"]["scale"][i]
            made = np.zeros_like(x)
            for head in np.split(np.arange(8), 2):
                q, k, v = (normed @ kernels[name][:, head] for name in ("query", "key", "value"))
                for t in range(length):
                    scores = [turned(q[t], t) @ turned(k[s], s) / 2 for s in range(t + 1)]
                    shares = np.exp(scores - np.max(scores))
                    made[t, head] = shares / shares.sum() @ v[: t + 1]
            x = x + made @ kernels["out"]
            normed = rms(x) * blocks["mlp_norm"]["scale"][i]
            up, down = (blocks["mlp"][name]["kernel"][i] for name in ("up", "down"))
            x = x + np.maximum(normed @ up, 0) ** 2 @ down
        logits.append(rms(x) * weights["norm"]["scale"] @ weights["head"]["kernel"])
    return np.stack(logits)


def turned(x, position):
    """Four features as two complex numbers, each times one of angle `position * 10000^(-i / 2)`."""
    pairs = (x[:2] + 1j * x[2:]) * np.exp(1j * position * 10_000.0 ** (-np.arange(2) / 2))
    return np.concatenate([pairs.real, pairs.imag])


class TestTask:
    """Windows of four tokens, in batches of two."""

    def test_an_epoch_is_whole_batches_of_windows_none_twice(self, task):
        keys = jax.random.split(jax.random.key(0), 40)
        epochs = np.asarray(jax.jit(jax.vmap(task.batches))(keys))
        assert epochs.shape == (40, task.steps_per_epoch, 2) == (40, 3, 2)
        assert {len(set(epoch.ravel())) for epoch in epochs} == {6}
        # What is left out is another window each time, so over time all are seen.
        assert set(epochs.ravel()) == set(range(7))
        assert len({tuple(epoch.ravel()) for epoch in epochs}) > 30

    def test_where_windows_divide_an_epoch_is_all_of_them(self):
        text = corpus.Corpus(bytes(8 * 4 + 1), bytes(9), 1, "")
        task = text_task.make_task(text, length=4, batch_size=2, epoch_tokens=None, **SIZES)
        batches = jax.jit(task.batches)(jax.random.key(3))
        np.testing.assert_array_equal(np.sort(batches.ravel()), range(8))

    def test_a_part_of_them_if_an_epoch_has_so_many_tokens(self):
        text = corpus.Corpus(bytes(8 * 4 + 1), bytes(9), 1, "")
        task = text_task.make_task(text, length=4, batch_size=2, epoch_tokens=23, **SIZES)
        batches = np.asarray(
            jax.jit(jax.vmap(task.batches))(jax.random.split(jax.random.key(0), 9))
        )
        assert batches.shape == (9, 2, 2)
        assert {len(set(epoch.ravel())) for epoch in batches} == {4}
        assert set(batches.ravel()) == set(range(8))

    def test_what_is_to_be_foretold_is_the_token_after(self, task):
        seen = []

        def knows(inputs):
            seen.append(inputs)
            return 20 * jax.nn.one_hot(inputs + 1, 256)

        losses, margins = task.loss(knows, jnp.array([0, 6]))
        np.testing.assert_array_equal(seen[0], [[0, 1, 2, 3], [24, 25, 26, 27]])
        assert losses.shape == margins.shape == (8,)
        np.testing.assert_allclose(losses, 0, atol=1e-5)
        np.testing.assert_allclose(margins, 20)

    def test_what_is_held_out_counts_once_each(self, task):
        # The loss of a token grows with its value; five windows make three batches of two.
        logits = lambda inputs: -0.01 * inputs[..., None] * jax.nn.one_hot(inputs + 1, 256)
        inputs = np.arange(100, 120)
        expected = np.mean(np.log(255 + np.exp(-0.01 * inputs)) + 0.01 * inputs)
        found = task.evaluate(logits)
        np.testing.assert_allclose(found["held_out_loss"], expected, rtol=1e-6)
        np.testing.assert_allclose(found["bits_per_byte"], expected / np.log(2), rtol=1e-6)

    @pytest.mark.parametrize(
        ("train", "held_out", "options", "message"),
        [
            (8, 9, {}, "the text has 1 windows of that length to train on and 2 held out"),
            (9, 4, {}, "2 windows of that length to train on and 0 held out"),
            (9, 9, {"epoch_tokens": 7}, "epoch_tokens=7 must be at least one batch of 8"),
        ],
    )
    def test_too_little_text_is_named(self, train, held_out, options, message):
        text = corpus.Corpus(bytes(train), bytes(held_out), 1, "")
        given = {"length": 4, "batch_size": 2, "epoch_tokens": None, **SIZES, **options}
        with pytest.raises(ValueError, match=message):
            text_task.make_task(text, **given)


class TestCorpus:
    """Ten files of 100 bytes."""

    @pytest.fixture
    def folder(self, tmp_path):
        for i in range(10):
            (tmp_path / f"folder{i % 3}").mkdir(exist_ok=True)
            (tmp_path / f"folder{i % 3}" / f"{i}.txt").write_text(99 * str(i))
        return tmp_path

    def test_every_file_is_there_once_and_the_last_whole_ones_are_held_out(self, folder):
        found = corpus.load(folder, 0.15)
        assert (len(found.train), len(found.held_out), found.files) == (800, 200, 10)
        parts = (found.train + found.held_out).split(b"\0")
        assert parts.pop() == b""
        assert sorted(parts) == [99 * str(i).encode() for i in range(10)]
        assert parts != sorted(parts)
        assert corpus.load(folder, 0.15) == found
        assert corpus.load(folder, 0.25).train == found.train[:700]

    def test_where_the_folder_lies_changes_nothing_and_a_letter_does(self, folder):
        before = corpus.load(folder)
        moved = folder.rename(folder.with_name("moved"))
        assert corpus.load(moved) == before
        (moved / "folder0" / "0.txt").write_text(98 * "0" + "1")
        assert corpus.load(moved).checksum != before.checksum

    def test_hidden_files_and_such_as_are_no_text_are_left_out(self, folder):
        before = corpus.load(folder)
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("hidden")
        (folder / "picture").write_bytes(b"P\0\1")
        (folder / "empty").write_text("")
        assert corpus.load(folder) == before

    def test_of_one_file_the_end_is_held_out(self, folder):
        (folder / "one").write_text("x" * 75 + "y" * 24)
        found = corpus.load(folder / "one", 0.25)
        assert found[:3] == (b"x" * 75, b"y" * 24 + b"\0", 1)

    def test_the_standard_library_without_its_tests_and_tables(self):
        texts = corpus.standard_texts()
        assert {"abc.py", "json/decoder.py"} <= texts.keys()
        assert not any(name.startswith(("test/", "encodings/", "_sysconf")) for name in texts)
        found = corpus.load()
        assert len(found.train) > 5e6
        assert 0.02 <= len(found.held_out) / (len(found.train) + len(found.held_out)) < 0.05

    def test_no_text_is_named(self, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="holds no text"):
            corpus.load(tmp_path)
        with pytest.raises(FileNotFoundError, match="is not there"):
            corpus.load(tmp_path / "none")
        (tmp_path / "short").write_text("a")
        with pytest.raises(ValueError, match="has 2 bytes, too few to hold out"):
            corpus.load(tmp_path / "short", 0.1)
        monkeypatch.setattr(standard_library, "folder", lambda: tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="holds no modules"):
            corpus.load()


def test_pieces_are_means_of_their_windows_in_bits_per_byte(task, monkeypatch):
    monkeypatch.setattr(text_task, "PIECES", 2)
    model = nnx.jit(lambda: task.model(nnx.Rngs(0)))()
    pieces = task.score_examples(model)["pieces"]
    # Of five windows the last one fills no piece.
    losses = task.held_out_losses(model)
    expected = [losses[:2].mean(), losses[2:4].mean()] / np.log(2)
    np.testing.assert_allclose(pieces, expected, rtol=1e-5)
    monkeypatch.setattr(text_task, "PIECES", 6)
    with pytest.raises(ValueError, match="held out has 5 windows of 4 tokens, fewer than 6"):
        task.score_examples(model)


def test_jax_tells_tasks_of_two_kinds_apart(task):
    # It compares registered dataclasses by their fields alone.
    masked = text_task.MaskedText(**vars(task))
    assert jax.tree.structure(masked) != jax.tree.structure(task)


@pytest.fixture(scope="module")
def record(config, tmp_path_factory):
    """Of a run that is not stopped."""
    out = tmp_path_factory.mktemp("out") / "runs.jsonl"
    lm.main(dataclasses.replace(config, out=out))
    (record,) = records.read_records(out)
    return record


def test_the_command_goes_on_where_it_was_stopped(config, record, tmp_path, monkeypatch, capsys):
    kept = dataclasses.replace(
        config,
        out=tmp_path / "runs.jsonl",
        checkpoint_dir=tmp_path / "checkpoints",
        tensorboard=tmp_path / "events",
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(StoppedError):
            lm.main(kept)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        lm.main(kept)
    printed = capsys.readouterr().out
    assert "| held-out bits per byte" in printed
    assert "1 files: 841 bytes to train on, 360 held out, checksum " in printed
    assert "5,672 parameters, 192 tokens, of 1 seed(s)" in printed
    (resumed,) = records.read_records(tmp_path / "runs.jsonl")
    assert resumed["curve"] == record["curve"]
    assert resumed["config"] == record["config"]
    assert len(list((tmp_path / "events").glob("*/events.*"))) == 2
    lm.main(kept)
    assert "had this run finished" in capsys.readouterr().out
    assert len(records.read_records(tmp_path / "runs.jsonl")) == 1


def test_the_record_says_what_was_learnt_and_from_what(record):
    final, config = record["final"], record["config"]
    assert final["bits_per_byte"] == pytest.approx(final["held_out_loss"] / np.log(2))
    assert final["held_out_loss"] < record["curve"]["held_out_loss"][0] < np.log(256)
    assert (config["example"], config["corpus"]["files"]) == ("lm", 1)
    assert "data_dir" not in config


def test_every_layer_holds_its_own_norms(record):
    kernels = [f"attention/{name}" for name in ("query", "key", "value", "out")]
    kernels += ["mlp/up", "mlp/down"]
    layers = [f"norm/blocks/{name}/kernel/{i}" for name in kernels for i in (0, 1)]
    curve = record["curve"]
    names = {name for name in curve if name.startswith("norm/")}
    assert names == {*layers, "norm/embedding/embedding", "norm/head/kernel"}
    assert record["switched_at_epoch"] == 1
    for name in names:
        np.testing.assert_allclose(curve[name], curve[name][0], rtol=3e-6)
    assert len({curve[name][0] for name in names}) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [text_task.Text, text_task.MaskedText])
def test_a_mesh_computes_what_one_device_computes(task, objective):
    task = objective(**vars(task))
    alone = training.train(task, OPTIONS)
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    result = training.train(task, dataclasses.replace(OPTIONS, mesh=mesh))
    for name, values in alone.curve.items():
        np.testing.assert_allclose(result.curve[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert max_difference(result.state.params, alone.state.params) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 100, "heads": 4}, r"width=100 must be a multiple of 8, twice the heads=4"),
        ({"depth": 0}, r"depth=0 must be at least 1"),
        ({"held_out_share": 1.0}, r"held_out_share=1.0 must be above 0 and below 1"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lm.Config(**options)


HIDING_LENGTH, ASKED = 40, 6


@pytest.fixture(scope="module")
def masked():
    """Windows of 40 tokens, six of which are asked for."""
    letters = np.random.default_rng(0).integers(97, 123, 1000).astype(np.uint8).tobytes()
    return text_task.make_task(
        corpus.Corpus(letters, letters[:241], 1, ""),
        length=HIDING_LENGTH,
        batch_size=4,
        epoch_tokens=None,
        objective=text_task.MaskedText,
        **SIZES,
    )


@pytest.fixture(scope="module")
def encoder(masked):
    """At its start."""
    return nnx.jit(lambda: masked.model(nnx.Rngs(0)))()


class TestMasked:
    """Which bytes are hidden, from those on both sides."""

    def test_a_share_of_the_places_is_hidden_replaced_or_left(self):
        tokens = jnp.full(HIDING_LENGTH, 97)
        mask = lambda seed: text_task.mask_tokens(tokens, seed, rate=0.15)
        places, shown = jax.jit(jax.vmap(mask))(jnp.arange(2000))
        assert {len(set(row)) for row in np.asarray(places)} == {ASKED}
        drawn = np.zeros(shown.shape, bool)
        np.put_along_axis(drawn, np.asarray(places), True, axis=1)
        assert (np.asarray(shown)[~drawn] == 97).all()
        of_drawn = np.asarray(shown)[drawn]
        hidden, left = (of_drawn == text_task.MASK_TOKEN).mean(), (of_drawn == 97).mean()
        np.testing.assert_allclose([hidden, left], [0.8, 0.1 + 0.1 / 256], atol=0.01)
        assert len(set(of_drawn)) > 240
        np.testing.assert_allclose(drawn.mean(axis=0), ASKED / HIDING_LENGTH, atol=0.03)

    @pytest.mark.parametrize(("length", "asked"), [(1, 1), (3, 1), (40, 6), (128, 19)])
    def test_a_share_is_rounded_and_no_less_than_one(self, length, asked):
        mask = lambda tokens: text_task.mask_tokens(tokens, jnp.int32(0), rate=0.15)
        places, shown = jax.eval_shape(mask, jnp.zeros(length, jnp.int32))
        assert (places.shape, shown.shape) == ((asked,), (length,))

    def test_the_mask_has_a_row_of_the_embedding_and_no_logit(self, encoder):
        weights = nnx.to_pure_dict(nnx.state(encoder))
        width = SIZES["width"]
        assert weights["embedding"]["embedding"].shape == (VOCABULARY + 1, width)
        assert weights["head"]["kernel"].shape == (width, VOCABULARY)

    def test_only_what_was_drawn_is_asked_for(self, masked, encoder):
        batch = jnp.array([[3, 11], [7, 12]])
        losses, margins = nnx.jit(lambda model: masked.loss(model, batch))(encoder)
        assert losses.shape == margins.shape == (2 * ASKED,)
        expected, ahead = [], []
        for window, seed in np.asarray(batch):
            begin = HIDING_LENGTH * window
            tokens = np.asarray(masked.train[begin : begin + HIDING_LENGTH], int)
            places, shown = text_task.mask_tokens(jnp.asarray(tokens), jnp.asarray(seed), 0.15)
            logits = np.asarray(call(encoder, shown[None]), np.float64)[0, places]
            log_shares = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            for row, target in zip(log_shares, tokens[places], strict=True):
                expected.append(-row[target])
                ahead.append(row[target] - np.delete(row, target).max())
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(margins, ahead, atol=1e-5)

    def test_a_token_sees_both_sides(self, encoder):
        tokens = np.full((1, 9), 97, np.int32)
        other = tokens.copy()
        other[0, 4] = 98
        moved = np.abs(np.asarray(call(encoder, tokens)) - np.asarray(call(encoder, other)))
        assert (moved.max(axis=-1) > 1e-6).all()

    def test_an_epoch_hides_other_tokens_and_an_evaluation_the_same(self, masked, encoder):
        draw = jax.jit(masked.batches)
        first, again, second = (np.asarray(draw(jax.random.key(i))) for i in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        seeds = lambda batches: dict(batches.reshape(-1, 2))
        assert seeds(first).keys() == seeds(second).keys() == set(range(24))
        assert not set(seeds(first).values()) & set(seeds(second).values())
        evaluated = [nnx.jit(masked.evaluate)(encoder) for _ in range(2)]
        assert evaluated[0] == evaluated[1]


LONGER = {"long_length": 16, "long_epochs": 1}


@pytest.mark.parametrize(("objective", "stopped_after"), [("causal", 1), ("masked", 2)])
def test_longer_windows_come_last_and_a_stopped_run_goes_on(
    objective, stopped_after, config, tmp_path, monkeypatch
):
    longer = dataclasses.replace(config, objective=objective, seeds=2, **LONGER)
    task = lm.load(longer)
    source = lm.lengthening(longer, task)
    (short,), (long,) = source.chunks(2, 0), source.chunks(3, 0)
    assert (source.held_out(2), source.held_out(3)) == ((short,), (long,))
    assert (short.length, short.batch_size) == (8, 4)
    assert (long.length, long.batch_size) == (16, 2)
    assert short.batches(jax.random.key(0)).shape[:2] == (2, 4)
    assert long.batches(jax.random.key(0)).shape[:2] == (2, 2)
    whole = training.train(task, longer, source=source)
    kept = dataclasses.replace(longer, checkpoint_dir=tmp_path / "checkpoints")
    with monkeypatch.context() as patch:
        stop_after(patch, stopped_after)
        with pytest.raises(StoppedError):
            training.train(task, kept, source=source)
    assert_same(training.train(task, kept, source=source), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_length": 12}, "long_length=12 must be a multiple of length=8"),
        ({"long_length": 24}, "by a factor from 2 that divides batch_size=4"),
        ({"long_length": 4}, "long_length=4 must be a multiple of length=8"),
        ({"long_length": 8}, "long_length=8 must be .* by a factor from 2"),
        ({"long_length": 0}, "long_length=0 must be .* by a factor from 2"),
        ({"long_length": -8}, "long_length=-8 must be .* by a factor from 2"),
        ({"long_length": 512, "batch_size": 64}, "long_length=512: the text held out has no"),
    ],
)
def test_windows_that_do_not_divide_are_named(config, options, message):
    task = lm.load(config)
    wrong = dataclasses.replace(config, **options)
    with pytest.raises(ValueError, match=message):
        lm.lengthening(wrong, dataclasses.replace(task, batch_size=wrong.batch_size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_length": 256, "long_epochs": 9}, "long_epochs=9 must lie between 1 and epochs=3"),
        ({"long_length": 256, "long_epochs": 0}, "long_epochs=0 must lie between 1 and epochs=3"),
        ({"long_epochs": 2}, "long_epochs=2 with long_length=None: .* leave it at 1"),
    ],
)
def test_long_epochs_that_there_are_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lm.Config(**options)


@pytest.mark.parametrize(
    ("objective", "unit"), [("causal", " per byte "), ("masked", " per masked byte ")]
)
def test_a_table_says_what_its_losses_are_of(objective, unit, config, capsys):
    config = dataclasses.replace(config, objective=objective)
    text = corpus.load(config.data_dir, config.held_out_share)
    state = training.loop.State({"kernel": np.zeros((1, 2, 3))}, {}, (), None)
    curve = {name: np.ones((1, 3)) for name, *_ in lm.REPORTED.values()}
    lm.report(config, text, lm.make_task(config, text), training.Result(state, curve, 1.0))
    assert capsys.readouterr().out.count(unit) == 3


def test_a_record_has_the_objective_and_the_longer_windows_only_where_they_are_given():
    given = {"objective": "masked", "long_length": 256, "long_epochs": 2}
    assert not given.keys() & lm.Config().config().keys()
    assert given.items() <= lm.Config(**given).config().items()
