"""The interaction data: files worked out by hand, and every way a file can be wrong."""

import bz2
import dataclasses
import doctest
import functools
import gzip
import http.server
import lzma
import re
import threading
import time
import zipfile

import numpy as np
import pytest

from examples.tasks.recommendation import datasets, load, prepared, protocol

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
    return folder


def published(folder, train=TRAIN, test=TEST, negatives=NEGATIVES):
    return write(
        folder,
        ml_1m_train_pairs=rows(train),
        ml_1m_test_rating=rows(test),
        ml_1m_test_negative=negative_rows(negatives),
    )


@pytest.fixture
def load_(tmp_path):
    return functools.partial(load, cache_dir=tmp_path / "cache")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


PACK = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}
# What spreadsheets, editors and downloads make of a text file.
ODDITIES = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text,
    "lines of Windows": lambda text: text.replace(b"\n", b"\r\n"),
    "lines of the old Mac": lambda text: text.replace(b"\n", b"\r"),
    "blank lines at the end": lambda text: text + b"\n\n \t\n",
    "all of Windows": lambda text: b"\xef\xbb\xbf" + (text + b"\n\n").replace(b"\n", b"\r\n"),
}


def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


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

    @pytest.mark.parametrize("oddity", ODDITIES)
    @pytest.mark.parametrize("header", ["", "user_id\titem_id\trating\ttimestamp\n"])
    def test_text_of_any_system_with_or_without_names(self, load_, data_dir, oddity, header):
        folder = write(data_dir, u_data=header + rows(LOG))
        rewrite(data_dir / "u.data", ODDITIES[oddity])
        self.check(load_("movielens-100k", folder))

    @pytest.mark.parametrize(
        ("dataset", "name", "header", "separator"),
        [
            ("movielens-1m", "ratings_dat", "UserID::MovieID::Rating::Timestamp", "::"),
            ("movielens-100k", "u_data", '"userId"\t"movieId"\t"rating"\t"timestamp"', "\t"),
            ("movielens-100k", "u_data", "user_id:token\titem_id:token\trating:float\ttime", "\t"),
        ],
    )
    def test_names_of_columns_as_others_write_them(
        self, load_, data_dir, dataset, name, header, separator
    ):
        text = f"{header}\n{rows(LOG, separator)}"
        self.check(load_(dataset, write(data_dir, **{name: text})))

    @pytest.mark.parametrize("folder", [".", "movielens-100k", "ml-100k"])
    @pytest.mark.parametrize("form", ["plain", "xz", "gz", "bz2", "zip"])
    def test_places_and_compression(self, load_, data_dir, folder, form):
        place, text = data_dir / folder, rows(LOG).encode()
        place.mkdir(parents=True)
        if form == "zip":
            with zipfile.ZipFile(place / "ml-100k.zip", "w") as archive:
                archive.writestr("ml-100k/u.data", text)
        elif form in PACK:
            (place / f"u.data.{form}").write_bytes(PACK[form](text))
        else:
            (place / "u.data").write_bytes(text)
        self.check(load_("movielens-100k", data_dir))

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

    def test_repeated_rows_are_told_each_time_and_count_once(self, load_, data_dir, caplog):
        folder = write(data_dir, u_data=rows([*LOG, *LOG[3:7]]))
        for _ in range(2):  # Prepared, and read back.
            self.check(load_("movielens-100k", folder))
            message = (
                "u.data: rows that repeat the user and item of an earlier one: 4, the first on"
                " line 121 (user 1, item 4); each pair counts once"
            )
            assert message in caplog.text
            caplog.clear()

    def test_repeated_rows_do_not_decide_what_comes_last(self, load_, data_dir):
        # User 1 rated items 20 and 5 at its latest time, in this order.
        table = [row for row in LOG if row[:2] != (1, 5)] + [(1, 5, 3, 1019)]
        first = load_("movielens-100k", write(data_dir / "a", u_data=rows(table)))
        again = load_("movielens-100k", write(data_dir / "b", u_data=rows(table + LOG[10:20])))
        assert first.candidates[0, 0] == again.candidates[0, 0] == 5 - 1
        assert same(first, again)

    @pytest.mark.parametrize("other", [(1, 3, 3, 1002), (1, 3, 4, 1019), (1, 3, 3, 7)])
    def test_a_pair_with_another_rating_or_time_is_told(self, load_, data_dir, caplog, other):
        assert LOG[2] == (1, 3, 3, 1002)
        load_("movielens-100k", write(data_dir, u_data=rows([*LOG, other])))
        told = ", 1 with another rating or time; each pair counts once, with its latest time"
        assert "earlier one: 1, the first on line 121" in caplog.text
        assert (told in caplog.text) == (other != LOG[2])

    def test_nothing_is_told_of_rows_that_differ(self, load_, data_dir, caplog):
        load_("movielens-100k", write(data_dir, u_data=rows(LOG)))
        assert "repeat" not in caplog.text

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
        again = load_("movielens-100k", folder, cache_dir=tmp_path / "other")
        other = load_("movielens-100k", folder, negatives_seed=1)
        assert same(first, again)
        assert not same(first, other)
        np.testing.assert_array_equal(first.train, other.train)
        np.testing.assert_array_equal(first.candidates[0, 1:7], [46, 106, 22, 75, 95, 113])

    def test_the_interaction_before_the_latest_is_held_out_as_well(self, load_, folder):
        plain, data = (
            load_("movielens-100k", folder),
            load_("movielens-100k", folder, validate=True),
        )
        assert plain.validation.shape == (0, 100)
        # Users have 20 items in the order of their numbers.
        assert data.validation[:, 0].tolist() == [18, 38, 58, 78, 98, 118]
        assert len(data.train) == len(plain.train) - USERS
        for user in range(USERS):
            trained_on = set(data.train[data.train[:, 0] == user, 1].tolist())
            assert len(trained_on) == EACH - 2
            negatives = set(data.validation[user, 1:].tolist())
            assert len(negatives) == 99
            assert not negatives & (trained_on | {18 + 20 * user, 19 + 20 * user})
        # What is reported is ranked among the same.
        np.testing.assert_array_equal(data.candidates, plain.candidates)
        assert (data.validation[:, 1:] != data.candidates[:, 1:]).any()
        assert same(load_("movielens-100k", folder, validate=True), data)

    def test_a_published_split_has_no_latest_but_one(self, load_, data_dir):
        with pytest.raises(
            ValueError, match=r"does not say which interaction is the latest but one"
        ):
            load_("movielens-1m", published(data_dir), validate=True)

    @pytest.mark.parametrize(
        ("dataset", "remedy"),
        [("movielens-1m", "data_dir a log, ratings.dat"), ("pinterest-20", "another dataset")],
    )
    def test_nothing_is_downloaded_that_has_no_latest_but_one(self, monkeypatch, dataset, remedy):
        monkeypatch.setattr(prepared, "download", lambda *_: pytest.fail("downloads"))
        with pytest.raises(ValueError, match=f"validate=True with dataset='{dataset}'.*{remedy}"):
            prepared.load(dataset, validate=True)

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
        np.testing.assert_array_equal(load_("movielens-1m", data_dir).train, TRAIN)

    def test_order_of_rows_is_without_effect(self, load_, data_dir):
        first = load_("movielens-1m", published(data_dir / "a"))
        swapped = published(data_dir / "b", TRAIN[::-1], [*TEST[3:], *TEST[:3]], NEGATIVES[::-1])
        assert same(first, load_("movielens-1m", swapped))

    @pytest.mark.parametrize("oddity", ODDITIES)
    def test_text_of_any_system(self, load_, data_dir, oddity):
        published(data_dir)
        for path in data_dir.iterdir():
            rewrite(path, ODDITIES[oddity])
        data = load_("movielens-1m", data_dir)
        np.testing.assert_array_equal(data.train, TRAIN)
        np.testing.assert_array_equal(data.candidates, [[i, *ns] for _, i, ns in NEGATIVES])

    @pytest.mark.parametrize("form", PACK)
    def test_names_of_columns_and_compression(self, load_, data_dir, form):
        published(data_dir)
        headers = {
            "ml-1m.train.pairs": b"user_id\titem_id\n",
            "ml-1m.test.rating": b"user_id\titem_id\trating\ttimestamp\n",
            "ml-1m.test.negative": b"(user,item)\tnegatives\n",
        }
        for name, header in headers.items():
            text = (data_dir / name).read_bytes()
            (data_dir / name).unlink()
            (data_dir / f"{name}.{form}").write_bytes(PACK[form](header + text))
        data = load_("movielens-1m", data_dir)
        np.testing.assert_array_equal(data.train, TRAIN)
        np.testing.assert_array_equal(data.candidates, [[i, *ns] for _, i, ns in NEGATIVES])

    def test_what_is_odd_is_told(self, load_, data_dir, caplog):
        train = [*TRAIN, TRAIN[5], TEST[1][:2]]
        negatives = [*NEGATIVES]
        user, item, ids = negatives[4]
        negatives[4] = (user, item, [*ids[:-2], ids[0], TRAIN[-20][1]])
        assert TRAIN[-20][0] == user
        load_("movielens-1m", published(data_dir, train=train, negatives=negatives))
        for message in (
            "ml-1m.train.pairs: rows that repeat the user and item of an earlier one: 1, the first"
            " on line 115 (user 0, item 5)",
            "ml-1m.train.pairs: rows that are held out, and so not trained on: 1",
            "ml-1m.test.negative: negatives that their users train on: 1, that stand there twice:"
            " 1; all are kept as published",
        ):
            assert message in caplog.text

    def test_nothing_is_told_of_a_split_as_published(self, load_, data_dir, caplog):
        load_("movielens-1m", published(data_dir))
        assert len(caplog.records) == 1
        assert "120 interactions, but 1000209" in caplog.text

    def test_goes_before_the_log(self, load_, data_dir):
        write(data_dir, ratings_dat=rows(LOG[:60], "::"))
        assert load_("movielens-1m", published(data_dir / "movielens-1m")).num_users == 6
        assert load_("movielens-1m", data_dir).num_users == 6

    def test_negatives_are_sampled_where_none_are_published(self, load_, data_dir):
        published(data_dir)
        (data_dir / "ml-1m.test.negative").unlink()
        data = load_("movielens-1m", data_dir)
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


def field(column, text, line=7):
    """The log with a field of a line replaced."""
    row = [*map(str, LOG[line - 1])]
    row[column] = str(text)
    return edited(rows(LOG), line, "\t".join(row) + "\n")


NAMES = "user\titem\trating\ttimestamp\n"
BROKEN_LOGS = {
    "names without rows": (NAMES, "line 2: the file is empty: fetch it again"),
    "names in another order": (
        "item\tuser\trating\ttimestamp\n" + rows(LOG),
        "line 1: expected .*, nor does the line name these columns in this order: correct the row",
    ),
    "names twice": (NAMES + NAMES + rows(LOG), "line 2: expected .* whose user 'user' is not a"),
    "lines counted from the names": (NAMES + field(2, 9), "line 8: rating 9 is out of range"),
    "commas": (
        rows(LOG, ","),
        "line 1: .* got '1,1,1,1000', where the number of fields is 1 and not 4",
    ),
    "signed user": (field(0, "+5"), r"line 7: .* whose user '\+5' must be written 5: correct"),
    "negative item": (field(1, "-3"), "line 7: .* whose item '-3' is not a whole number from 0"),
    "zeros in front": (field(0, "001"), "line 7: .* whose user '001' must be written 1"),
    "decimal point": (field(1, "5.0"), r"line 7: .* whose item '5\.0' must be written 5"),
    "half a star": (field(2, "3.5"), r"line 7: .* whose rating '3\.5' is not a whole number"),
    "digits of another script": (field(0, "\u0663"), "line 7: .* user '\u0663' must be written 3"),
    "full-width digits": (field(1, "\uff15"), "line 7: .* whose item '\uff15' must be written 5"),
    "not a number": (field(3, "nan"), "line 7: .* whose timestamp 'nan' is not a whole number"),
    "date": (field(3, "1997-12-04"), "line 7: .* whose timestamp '1997-12-04' is not a number"),
    "rating 0": (field(2, 0), "line 7: rating 0 is out of range: the ratings .* are 1 to 5"),
    "rating 6": (field(2, 6), "line 7: rating 6 is out of range: .* correct the row, or fetch"),
    "milliseconds": (
        field(3, 881250949000),
        "line 7: timestamp 881250949000 is in the future: .* divide milliseconds by 1000",
    ),
    "future": (
        field(3, int(time.time()) + 10 * 86_400),
        r"line 7: timestamp \d{10} is in the future: expected seconds since 1970",
    ),
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
    "no negatives": (
        "negative",
        edited(negative_rows(NEGATIVES), 2, "(1,39)\n"),
        "line 2: .*where the number of fields is 2 and not 101",
    ),
    "98 negatives": (
        "negative",
        negative_rows(SHORT),
        r"line 4: expected .* 99 negatives.* where the number of fields is 100 and",
    ),
    "no parentheses": ("negative", negative_rows(NEGATIVES).replace("(", ""), "line 1: expected"),
    "unknown negative": (
        "negative",
        negative_rows(NEGATIVES).replace("\t21\t", "\t3706\t"),
        r"line 1: negative 3706 is out of range: .* 0 to 3705",
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
    "test rating 0": ("rating", edited(rows(TEST), 3, "2\t59\t0\t7\n"), "line 3: rating 0 is out"),
    "test time in milliseconds": (
        "rating",
        edited(rows(TEST), 3, f"2\t59\t3\t{978300760000}\n"),
        "line 3: timestamp 978300760000 is in the future",
    ),
    "signed negative": (
        "negative",
        negative_rows(NEGATIVES).replace("\t21\t", "\t+21\t", 1),
        r"line 1: .* whose negative '\+21' must be written 21",
    ),
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
            load_("movielens-1m", data_dir)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf_16(self, load_, data_dir, encoding):
        write(data_dir)
        (data_dir / "u.data").write_bytes(rows(LOG).encode(encoding))
        with pytest.raises(
            ValueError, match=r"u\.data: expected plain text, got UTF-16 .*save it as UTF-8"
        ):
            load_("movielens-100k", data_dir)

    @pytest.mark.parametrize("text", ["\n", "\ufeff", " \r\n\t\n"])
    def test_nothing_but_blanks(self, load_, data_dir, text):
        folder = write(data_dir, u_data=text)
        with pytest.raises(ValueError, match=r"u\.data, line 1: the file is empty"):
            load_("movielens-100k", folder)

    @pytest.mark.parametrize("name", ["commas", "milliseconds"])
    def test_is_one_line(self, load_, data_dir, name):
        with pytest.raises(ValueError, match="line") as error:
            load_("movielens-100k", write(data_dir, u_data=BROKEN_LOGS[name][0]))
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("form", ["gz", "bz2"])
    @pytest.mark.parametrize("spoil", ["cut", "unpacked already"])
    def test_compressed_file_that_is_none(self, load_, data_dir, form, spoil):
        write(data_dir)
        text = rows(LOG).encode()
        content = PACK[form](text)[:-20] if spoil == "cut" else text
        (data_dir / f"u.data.{form}").write_bytes(content)
        with pytest.raises(ValueError, match=rf"u\.data\.{form}: cannot be unpacked .* fetch it"):
            load_("movielens-100k", data_dir)

    @pytest.mark.parametrize("keep", [0, 40])
    def test_truncated_xz(self, load_, data_dir, keep):
        write(data_dir)
        (data_dir / "u.data.xz").write_bytes(lzma.compress(rows(LOG).encode())[:keep])
        with pytest.raises(ValueError, match=r"u\.data\.xz: cannot be unpacked .* fetch it again"):
            load_("movielens-100k", data_dir)

    def test_zip_without_the_file(self, load_, data_dir):
        write(data_dir)
        with zipfile.ZipFile(data_dir / "ml-100k.zip", "w") as archive:
            archive.writestr("ml-100k/README", "")
        with pytest.raises(ValueError, match=r"zip:ml-100k/u\.data: cannot be unpacked"):
            load_("movielens-100k", data_dir)

    def test_truncated_zip(self, load_, data_dir):
        write(data_dir, **{"u_data": ""})
        (data_dir / "u.data").rename(data_dir / "ml-100k.zip")
        with pytest.raises(ValueError, match=r"zip:ml-100k/u\.data: cannot be unpacked"):
            load_("movielens-100k", data_dir)

    def test_nothing_there(self, load_, data_dir):
        with pytest.raises(FileNotFoundError, match=r"ml-1m\.train\.rating.*; or ratings\.dat"):
            load_("movielens-1m", data_dir)

    def test_a_file_in_place_of_its_folder(self, load_, data_dir):
        folder = write(data_dir, u_data=rows(LOG))
        with pytest.raises(FileNotFoundError, match=r"u\.data is a file, not a folder: give a"):
            load_("movielens-100k", folder / "u.data")

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_seed_out_of_range(self, load_, seed):
        with pytest.raises(ValueError, match=rf"negatives_seed={seed} must lie between 0 and"):
            load_("movielens-100k", negatives_seed=seed)

    @pytest.mark.parametrize(("suffix", "missing"), [("pairs", "train"), ("rating", "test")])
    def test_half_a_split(self, load_, data_dir, suffix, missing):
        published(data_dir)
        next(data_dir.glob(f"*.{suffix}")).unlink()
        with pytest.raises(FileNotFoundError, match=rf"but not ml-1m\.{missing}\.rating"):
            load_("movielens-1m", data_dir)

    def test_unknown_dataset(self, load_):
        with pytest.raises(ValueError, match=r"'movielens-1b' is not known; .* movielens-100k"):
            load_("movielens-1b")


class TestTerminal:
    """What is to be seen of TensorFlow Datasets."""

    def test_nothing_of_its_lines_and_bars(self, load_, data_dir, capfd):
        load_("movielens-100k", write(data_dir, u_data=rows(LOG)))
        assert capfd.readouterr() == ("", "")


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

        def slow(*args, **kwargs):
            monkeypatch.setattr(prepared, "leave_one_out", leave_one_out)
            load_("movielens-100k", folder)
            return leave_one_out(*args, **kwargs)

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
                monkeypatch.setattr(datasets, name, address)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            yield folder
            server.shutdown()

    def serve_split(self, public, monkeypatch):
        published(public)
        (public / "ml-1m.train.pairs").rename(public / "ml-1m.train.rating")
        blobs = {
            role: datasets.checksum(public / names[0], "git-blob").split(":")[1]
            for role, names in datasets.DATASETS["movielens-1m"].split.names.items()
        }
        known = datasets.DATASETS["movielens-1m"]
        split = dataclasses.replace(known.split, blobs=blobs)
        monkeypatch.setitem(
            datasets.DATASETS, "movielens-1m", dataclasses.replace(known, split=split)
        )

    def test_archive(self, load_, public, monkeypatch):
        with zipfile.ZipFile(public / "ml-100k.zip", "w") as archive:
            archive.writestr("ml-100k/u.data", rows(LOG))
        known = datasets.DATASETS["movielens-100k"]
        sha256 = datasets.checksum(public / "ml-100k.zip").split(":")[1]
        log = dataclasses.replace(known.log, sha256=sha256)
        monkeypatch.setitem(
            datasets.DATASETS, "movielens-100k", dataclasses.replace(known, log=log)
        )
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
        assert datasets.checksum(tmp_path / "hello", "git-blob") == expected

    def test_addresses(self):
        for known in datasets.DATASETS.values():
            for remote in known.remotes.values():
                assert re.fullmatch(r"https://\S+", remote.url)
                assert re.fullmatch(r"sha256:\w{64}|git-blob:\w{40}", remote.checksum)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *args):
        pass
