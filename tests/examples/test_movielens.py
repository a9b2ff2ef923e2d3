"""The interaction data: files worked out by hand, and every way a file can be wrong."""

import dataclasses
import doctest
import functools
import http.server
import lzma
import re
import threading
import zipfile

import numpy as np
import pytest

from examples.tasks.recommendation import catalog, load, prepared, protocol

USERS, EACH = 6, 20
# 20 items a user, no two alike: each user then has 100 that are not observed, one to spare.
LOG = [
    (user, 20 * (user - 1) + k + 1, 1 + k % 5, 1000 + k)
    for user in range(1, USERS + 1)
    for k in range(EACH)
]
# The same in the published form: ids from 0, the 20th of each user held out.
TRAIN = [(user - 1, item - 1) for user, item, _, time in LOG if time < 1019]
TEST = [(user - 1, item - 1, 3, time) for user, item, _, time in LOG if time == 1019]
NEGATIVES = [(u, i, [(i + 1 + k) % 120 for k in range(99)]) for u, i, _, _ in TEST]


def rows(table, separator="\t"):
    return "".join(separator.join(map(str, row)) + "\n" for row in table)


def negative_rows(table):
    return "".join(f"({u},{i})" + "".join(f"\t{n}" for n in ns) + "\n" for u, i, ns in table)


def write(folder, **files):
    """Writes files named with `_` for `.`; ``ml_1m`` and the like keep their hyphens."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        name = name.replace("ml_1m", "ml-1m").replace("pinterest_20", "pinterest-20")
        (folder / name.replace("_", ".")).write_text(text)
    return str(folder)


def published(folder, train=TRAIN, test=TEST, negatives=NEGATIVES):
    return write(
        folder,
        ml_1m_train_pairs=rows(train),
        ml_1m_test_rating=rows(test),
        ml_1m_test_negative=negative_rows(negatives),
    )


@pytest.fixture
def load_(tmp_path):
    return functools.partial(load, cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def same(first, second):
    return (
        np.array_equal(first.train, second.train)
        and np.array_equal(first.candidates, second.candidates)
        and first.num_items == second.num_items
    )


class TestRatingLog:
    """GroupLens's ratings, of which the latest are held out."""

    def check(self, data):
        """The arrays that LOG comes to."""
        assert data.train.dtype == data.candidates.dtype == np.int32
        np.testing.assert_array_equal(data.train, TRAIN)
        np.testing.assert_array_equal(data.candidates[:, 0], [19, 39, 59, 79, 99, 119])
        assert data.candidates.shape == (data.num_users, 100) == (6, 100)
        assert (data.num_items, data.num_interactions, data.removed_users) == (120, 120, 0)

    def test_tab_separated(self, load_, data_dir):
        self.check(load_("movielens-100k", write(data_dir, u_data=rows(LOG))))

    def test_double_colons(self, load_, data_dir):
        self.check(load_("movielens-1m", write(data_dir, ratings_dat=rows(LOG, "::"))))

    def test_windows_line_ends(self, load_, data_dir):
        write(data_dir)
        (data_dir / "u.data").write_bytes(rows(LOG).replace("\n", "\r\n").encode())
        self.check(load_("movielens-100k", str(data_dir)))

    @pytest.mark.parametrize("folder", [".", "movielens-100k", "ml-100k"])
    @pytest.mark.parametrize("form", ["plain", "xz", "zip"])
    def test_places_and_compression(self, load_, data_dir, folder, form):
        place, text = data_dir / folder, rows(LOG).encode()
        place.mkdir(parents=True)
        if form == "zip":
            with zipfile.ZipFile(place / "ml-100k.zip", "w") as archive:
                archive.writestr("ml-100k/u.data", text)
        elif form == "xz":
            (place / "u.data.xz").write_bytes(lzma.compress(text))
        else:
            (place / "u.data").write_bytes(text)
        self.check(load_("movielens-100k", str(data_dir)))

    def test_order_of_rows_is_without_effect_where_times_differ(self, load_, data_dir):
        shuffled = np.random.RandomState(0).permutation(LOG).tolist()
        self.check(load_("movielens-100k", write(data_dir, u_data=rows(shuffled))))

    def test_among_latest_the_last_row_of_the_file_is_held_out(self, load_, data_dir):
        # User 1 rated items 20, 5 and 9 at its latest time, in this order.
        table = [row for row in LOG if row[:2] not in [(1, 5), (1, 9)]]
        table += [(1, 5, 3, 1019), (2, 41, 3, 7), (1, 9, 3, 1019), (1, 60, 1, 3)]
        data = load_("movielens-100k", write(data_dir, u_data=rows(table)))
        assert data.candidates[0, 0] == 9 - 1
        np.testing.assert_array_equal(data.candidates[1:, 0], [39, 59, 79, 99, 119])

    def test_users_with_fewer_than_20_interactions_go(self, load_, data_dir):
        # User 1 loses item 1 and keeps 19, user 8 has one; items 2 .. 20 then are nobody's.
        table = [*LOG[1:], (8, 300, 5, 1), *((7, 121 + k, 3, k) for k in range(20))]
        data = load_("movielens-100k", write(data_dir, u_data=rows(table)))
        assert (data.num_users, data.num_items, data.removed_users) == (6, 120, 2)
        assert data.num_interactions == 140
        np.testing.assert_array_equal(data.train, TRAIN)

    def test_a_repeated_interaction_counts_once(self, load_, data_dir):
        # The held-out item was rated before as well; 19 distinct items are too few.
        repeated = [(1, 20, 4, 2), *LOG]
        self.check(load_("movielens-100k", write(data_dir / "a", u_data=rows(repeated))))
        few = [(1, 20, 4, 2), *LOG[1:], *((7, 121 + k, 3, k) for k in range(20))]
        data = load_("movielens-100k", write(data_dir / "b", u_data=rows(few)))
        assert data.removed_users == 1

    def test_tells_when_interactions_are_missing(self, load_, data_dir, caplog):
        load_("movielens-100k", write(data_dir, u_data=rows(LOG)))
        assert "120 interactions, but 100000 in the published dataset" in caplog.text


class TestNegatives:
    """Negatives to test on and to train on."""

    @pytest.fixture
    def folder(self, data_dir):
        return write(data_dir, u_data=rows(LOG))

    def test_never_observed_and_never_twice(self, load_, folder):
        data = load_("movielens-100k", folder)
        for user, candidates in enumerate(data.candidates):
            observed = data.train[data.train[:, 0] == user, 1]
            assert len(set(candidates)) == 100
            assert not set(candidates) & set(observed)

    def test_fixed_by_the_seed(self, load_, folder, tmp_path):
        first = load_("movielens-100k", folder)
        again = load_("movielens-100k", folder, cache_dir=str(tmp_path / "other"))
        other = load_("movielens-100k", folder, negatives_seed=1)
        assert same(first, again)
        assert not same(first, other)
        np.testing.assert_array_equal(first.train, other.train)
        np.testing.assert_array_equal(first.candidates[0, 1:7], [46, 106, 22, 75, 95, 113])

    def test_rank_to_item_reaches_each_unobserved_item_once(self, load_, data_dir):
        extra = [(1, item, 3, 1) for item in (21, 23, 24, 77, 120)]
        data = load_("movielens-100k", write(data_dir, u_data=rows([*extra, *LOG[:-1], *EXTRA])))
        for user in range(data.num_users):
            s = slice(data.offsets[user], data.offsets[user + 1])
            observed = data.train[s, 1]
            assert (data.train[s, 0] == user).all()
            ranks = np.arange(data.num_items - len(observed))
            below = data.unobserved_below[s]
            drawn = ranks + np.searchsorted(below, ranks, side="right")
            np.testing.assert_array_equal(drawn, np.setdiff1d(np.arange(data.num_items), observed))
            assert data.candidates[user, 0] in drawn

    def test_doctest(self):
        assert doctest.testmod(protocol).failed == 0


EXTRA = [(6, 120, 1, 5), *((7, 121 + k, 3, k) for k in range(30))]


class TestPublishedSplit:
    """The split of the NCF authors."""

    def test_kept_as_published(self, load_, data_dir):
        data = load_("movielens-1m", published(data_dir))
        np.testing.assert_array_equal(data.train, TRAIN)
        np.testing.assert_array_equal(data.candidates, [[i, *ns] for _, i, ns in NEGATIVES])
        assert (data.num_users, data.num_items, data.num_interactions) == (6, 120, 120)

    def test_a_negative_that_is_the_held_out_item_is_kept(self, load_, data_dir):
        user, item, negatives = NEGATIVES[2]
        table = [*NEGATIVES[:2], (user, item, [*negatives[:-1], item]), *NEGATIVES[3:]]
        data = load_("movielens-1m", published(data_dir, negatives=table))
        assert data.candidates[2, 0] == data.candidates[2, 99] == item

    @pytest.mark.parametrize("columns", [3, 4])
    def test_train_file_with_ratings(self, load_, data_dir, columns):
        train = [(*pair, 4, 978300760)[:columns] for pair in TRAIN]
        published(data_dir)
        (data_dir / "ml-1m.train.pairs").rename(data_dir / "ml-1m.train.rating")
        write(data_dir, ml_1m_train_rating=rows(train))
        np.testing.assert_array_equal(load_("movielens-1m", str(data_dir)).train, TRAIN)

    def test_order_of_rows_is_without_effect(self, load_, data_dir):
        first = load_("movielens-1m", published(data_dir / "a"))
        swapped = published(data_dir / "b", TRAIN[::-1], [*TEST[3:], *TEST[:3]], NEGATIVES[::-1])
        assert same(first, load_("movielens-1m", swapped))

    def test_goes_before_the_log(self, load_, data_dir):
        write(data_dir, ratings_dat=rows(LOG[:60], "::"))
        assert load_("movielens-1m", published(data_dir / "movielens-1m")).num_users == 6
        assert load_("movielens-1m", str(data_dir)).num_users == 6

    def test_negatives_are_sampled_where_none_are_published(self, load_, data_dir):
        published(data_dir)
        (data_dir / "ml-1m.test.negative").unlink()
        data = load_("movielens-1m", str(data_dir))
        np.testing.assert_array_equal(data.candidates[:, 0], [i for _, i, _ in NEGATIVES])
        for (user, *_), candidates in zip(TEST, data.candidates, strict=True):
            assert len(set(candidates) - set(range(20 * user, 20 * user + 19))) == 100

    def test_the_held_out_pair_is_not_trained_on(self, load_, data_dir):
        data = load_("movielens-1m", published(data_dir, train=[(0, 19), *TRAIN]))
        np.testing.assert_array_equal(data.train, TRAIN)

    def test_pinterest(self, load_, data_dir):
        folder = write(
            data_dir / "pinterest-20",
            pinterest_20_train_rating=rows([(u, i, 1, 0) for u, i in TRAIN]),
            pinterest_20_test_rating=rows([(u, i, 1, 0) for u, i, _, _ in TEST]),
            pinterest_20_test_negative=negative_rows(NEGATIVES),
        )
        assert same(load_("pinterest-20", folder), load_("movielens-1m", published(data_dir)))


def edited(lines, line, text):
    """The lines with one replaced, counted from 1; None removes it."""
    lines = lines.splitlines(keepends=True)
    lines[line - 1 : line] = [] if text is None else [text]
    return "".join(lines)


BROKEN_LOGS = {
    "empty": ("", "line 1: the file is empty: fetch it again"),
    "truncated in a row": (rows(LOG)[:-8], r"line 120: expected 'user\\titem\\trating"),
    "truncated in a number": (rows(LOG)[:-2], "line 120: the last row ends without a newline"),
    "field missing": (edited(rows(LOG), 7, "1\t7\t3\n"), r"line 7: expected .* got '1\\t7\\t3'"),
    "field too many": (edited(rows(LOG), 7, "1\t7\t3\t4\t5\n"), "line 7: expected"),
    "words": (edited(rows(LOG), 7, "1\tseven\t3\t4\n"), "line 7: expected"),
    "negative id": (edited(rows(LOG), 7, "-1\t7\t3\t4\n"), "line 7: expected"),
    "fraction": (edited(rows(LOG), 7, "1\t7\t3.5\t4\n"), "line 7: expected"),
    "blank line": (edited(rows(LOG), 7, "\n"), "line 7: expected"),
    "wrong separator": (rows(LOG, "::"), "line 1: expected"),
    "huge number": (edited(rows(LOG), 7, f"1\t7\t3\t{10**30}\n"), "line 7: expected"),
    "user zero": (edited(rows(LOG), 7, "0\t7\t3\t4\n"), "line 7: user 0 is out of range: .* 1 to"),
    "user too large": (edited(rows(LOG), 9, "944\t7\t3\t4\n"), "line 9: user 944 is out of range"),
    "item too large": (edited(rows(LOG), 9, "1\t1683\t3\t4\n"), "line 9: item 1683 .* to 1682"),
    "too few items": (rows(LOG[:100]), "line 20: user 1 has 80 items left .* 99 negatives"),
    "users all removed": (rows(LOG[:19]), "no user has 20 interactions"),
}

SHORT = [*NEGATIVES[:3], (*NEGATIVES[3][:2], NEGATIVES[3][2][:98]), *NEGATIVES[4:]]
ELSEWHERE = [*NEGATIVES[:3], (3, 11, NEGATIVES[3][2]), *NEGATIVES[4:]]
BROKEN_SPLITS = {
    "no negatives": ("negative", edited(negative_rows(NEGATIVES), 2, "(1,39)\n"), "line 2: user 1"),
    "98 negatives": ("negative", negative_rows(SHORT), "line 4: user 3 has 98 negatives, 99 are"),
    "no parentheses": ("negative", negative_rows(NEGATIVES).replace("(", ""), "line 1: expected"),
    "unknown negative": (
        "negative",
        negative_rows(NEGATIVES).replace("\t21\t", "\t3706\t"),
        r"line 1: item 3706 is out of range: .* 0 to 3705",
    ),
    "user twice in negatives": (
        "negative",
        negative_rows([*NEGATIVES, NEGATIVES[1]]),
        "line 7: user 1 has a row already, on line 2",
    ),
    "user without a row of negatives": (
        "negative",
        negative_rows(NEGATIVES[:4]),
        "test.rating, line 5: user 4 has no row in .*test.negative",
    ),
    "negatives of another item": ("negative", negative_rows(ELSEWHERE), "line 4: item 11 is not"),
    "empty negatives": ("negative", "", "negative, line 1: the file is empty"),
    "user tested twice": (
        "rating",
        rows([*TEST[:4], (1, 7, 3, 1019), *TEST[4:]]),
        "test.rating, line 5: user 1 has a row already, on line 2: keep one",
    ),
    "test truncated": ("rating", rows(TEST[:4]), "train.pairs, line 77: user 4 has no row in"),
    "mixed columns": ("rating", edited(rows(TEST), 3, "2\t59\n"), "rating, line 3: expected"),
    "test item out of range": ("rating", edited(rows(TEST), 3, "2\t3706\t1\t1\n"), "line 3: item"),
    "train truncated": ("pairs", rows(TRAIN[:70]), "test.rating, line 5: user 4 has no row in"),
    "one column": (
        "pairs",
        "0\n1\n",
        r"pairs, line 1: expected 'user\\titem' in integers, got '0'",
    ),
    "train user out of range": ("pairs", edited(rows(TRAIN), 5, "6040\t4\n"), "line 5: user 6040"),
}


class TestErrors:
    """What is wrong is told with its file and line."""

    @pytest.mark.parametrize("name", BROKEN_LOGS)
    def test_broken_log(self, load_, data_dir, name):
        text, message = BROKEN_LOGS[name]
        folder = write(data_dir, u_data=text)
        with pytest.raises(ValueError, match=rf"u\.data\b.*{message}"):
            load_("movielens-100k", folder)

    @pytest.mark.parametrize("name", BROKEN_SPLITS)
    def test_broken_split(self, load_, data_dir, name):
        suffix, text, message = BROKEN_SPLITS[name]
        published(data_dir)
        [broken] = data_dir.glob(f"*.{suffix}")
        broken.write_text(text)
        with pytest.raises(ValueError, match=rf"ml-1m\..*{message}"):
            load_("movielens-1m", str(data_dir))

    @pytest.mark.parametrize("keep", [0, 40])
    def test_truncated_xz(self, load_, data_dir, keep):
        write(data_dir)
        (data_dir / "u.data.xz").write_bytes(lzma.compress(rows(LOG).encode())[:keep])
        with pytest.raises(ValueError, match=r"u\.data\.xz: cannot be unpacked .* fetch it again"):
            load_("movielens-100k", str(data_dir))

    def test_zip_without_the_file(self, load_, data_dir):
        write(data_dir)
        with zipfile.ZipFile(data_dir / "ml-100k.zip", "w") as archive:
            archive.writestr("ml-100k/README", "")
        with pytest.raises(ValueError, match=r"zip:ml-100k/u\.data: cannot be unpacked"):
            load_("movielens-100k", str(data_dir))

    def test_truncated_zip(self, load_, data_dir):
        write(data_dir, **{"u_data": ""})
        (data_dir / "u.data").rename(data_dir / "ml-100k.zip")
        with pytest.raises(ValueError, match=r"zip:ml-100k/u\.data: cannot be unpacked"):
            load_("movielens-100k", str(data_dir))

    def test_nothing_there(self, load_, data_dir):
        with pytest.raises(FileNotFoundError, match=r"ml-1m\.train\.rating.*; or ratings\.dat"):
            load_("movielens-1m", str(data_dir))

    @pytest.mark.parametrize(("suffix", "missing"), [("pairs", "train"), ("rating", "test")])
    def test_half_a_split(self, load_, data_dir, suffix, missing):
        published(data_dir)
        next(data_dir.glob(f"*.{suffix}")).unlink()
        with pytest.raises(FileNotFoundError, match=rf"but not ml-1m\.{missing}\.rating"):
            load_("movielens-1m", str(data_dir))

    def test_unknown_dataset(self, load_):
        with pytest.raises(ValueError, match=r"'movielens-1b' is not known; .* movielens-100k"):
            load_("movielens-1b")


class TestCache:
    """Prepared once, and never stale."""

    @pytest.fixture
    def folder(self, data_dir):
        return write(data_dir, u_data=rows(LOG))

    def test_prepares_once(self, load_, folder, monkeypatch):
        first = load_("movielens-100k", folder)
        monkeypatch.setattr(prepared, "read_split", None)
        assert same(first, load_("movielens-100k", folder))

    def test_a_changed_file_is_read_again(self, load_, folder, data_dir):
        load_("movielens-100k", folder)
        write(data_dir, u_data=rows([*LOG, (1, 21, 3, 1)]))
        assert load_("movielens-100k", folder).num_interactions == 121

    def test_by_default_where_tfds_keeps_its_data(self, folder, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
        load("movielens-100k", folder)
        assert list((tmp_path / "tfds").glob("movielens-100k-*/interactions/*/*.array_record*"))

    def test_the_seed_is_without_effect_on_published_negatives(self, load_, data_dir, monkeypatch):
        folder = published(data_dir)
        first = load_("movielens-1m", folder)
        monkeypatch.setattr(prepared, "read_split", None)
        assert same(first, load_("movielens-1m", folder, negatives_seed=7))

    def test_nothing_is_left_of_a_failure(self, load_, folder, data_dir):
        write(data_dir, u_data=rows(LOG)[:-2])
        with pytest.raises(ValueError, match="truncated"):
            load_("movielens-100k", folder)
        write(data_dir, u_data=rows(LOG))
        assert load_("movielens-100k", folder).num_users == 6

    def test_another_process_may_be_first(self, load_, folder, monkeypatch):
        leave_one_out = protocol.leave_one_out

        def slow(*args):
            monkeypatch.setattr(prepared, "leave_one_out", leave_one_out)
            load_("movielens-100k", folder)
            return leave_one_out(*args)

        monkeypatch.setattr(prepared, "leave_one_out", slow)
        assert load_("movielens-100k", folder).num_users == 6

    def test_arrays_are_read_only(self, load_, folder):
        with pytest.raises(ValueError, match="read-only"):
            load_("movielens-100k", folder).train[0] = 0


class TestDownload:
    """Through a server on the loopback interface."""

    @pytest.fixture
    def public(self, tmp_path, monkeypatch):
        """A folder served on the loopback interface in place of the public addresses."""
        folder = tmp_path / "public"
        folder.mkdir()
        handler = functools.partial(QuietHandler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            for name in ("_GROUPLENS", "_NCF"):
                monkeypatch.setattr(catalog, name, address)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            yield folder
            server.shutdown()

    def serve_split(self, public, monkeypatch):
        published(public)
        (public / "ml-1m.train.pairs").rename(public / "ml-1m.train.rating")
        blobs = {
            role: catalog.checksum(public / names[0], "git-blob").split(":")[1]
            for role, names in catalog.DATASETS["movielens-1m"].split.names.items()
        }
        known = catalog.DATASETS["movielens-1m"]
        split = dataclasses.replace(known.split, blobs=blobs)
        monkeypatch.setitem(
            catalog.DATASETS, "movielens-1m", dataclasses.replace(known, split=split)
        )

    def test_archive(self, load_, public, monkeypatch):
        with zipfile.ZipFile(public / "ml-100k.zip", "w") as archive:
            archive.writestr("ml-100k/u.data", rows(LOG))
        known = catalog.DATASETS["movielens-100k"]
        sha256 = catalog.checksum(public / "ml-100k.zip").split(":")[1]
        log = dataclasses.replace(known.log, sha256=sha256)
        monkeypatch.setitem(catalog.DATASETS, "movielens-100k", dataclasses.replace(known, log=log))
        np.testing.assert_array_equal(load_("movielens-100k").train, TRAIN)

    def test_split(self, load_, public, monkeypatch):
        self.serve_split(public, monkeypatch)
        first = load_("movielens-1m")
        np.testing.assert_array_equal(first.candidates, [[i, *ns] for _, i, ns in NEGATIVES])
        for path in public.iterdir():
            path.unlink()
        assert same(first, load_("movielens-1m"))

    def test_wrong_checksum(self, load_, public, monkeypatch):
        self.serve_split(public, monkeypatch)
        write(public, ml_1m_test_rating=rows(TEST[:-1]))
        with pytest.raises(ValueError, match=r"its checksum is git-blob:\w+, not .* delete"):
            load_("movielens-1m")

    def test_no_such_file(self, load_, public):
        with pytest.raises(ConnectionError, match=r"could not download .*give their folder"):
            load_("pinterest-20")

    def test_checksums_are_git_blob_ids(self, tmp_path):
        # `printf 'hello\n' | git hash-object --stdin`
        (tmp_path / "hello").write_text("hello\n")
        expected = "git-blob:ce013625030ba8dba906f756967f9e9ca394464a"
        assert catalog.checksum(tmp_path / "hello", "git-blob") == expected

    def test_addresses(self):
        for known in catalog.DATASETS.values():
            for remote in known.remotes.values():
                assert re.fullmatch(r"https://\S+", remote.url)
                assert re.fullmatch(r"sha256:\w{64}|git-blob:\w{40}", remote.checksum)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *args):
        pass
