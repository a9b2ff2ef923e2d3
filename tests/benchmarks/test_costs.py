"""What the report says of costs: against the goals, form by form, and what is not yet run."""

from benchmarks.report import cost_tables


def record(backend, tree, optimizer, **measured):
    shared = {"benchmark": "overhead", "leaves": 2, "parameters": 100, "largest_leaf": 60}
    about = {"device": backend, "windows": 7, "steps": 10, "versions": {"commit": "abc"}}
    cost = {"bytes": 40, "floor": 28, "flops": 13, "temporary": 0.0, "temporary_in_loop": 8.0}
    counted = {"kernels": 3, "reductions": 0, "compile_s": 1.0}
    time = {"ms": 1.0, "time": 1.0, "low": 1.0, "high": 1.0}
    names = {"backend": backend, "tree": tree, "optimizer": optimizer}
    return shared | about | cost | counted | time | names | measured


def test_the_report_measures_against_the_goals_and_says_what_is_not_yet_run(tmp_path):
    found = [
        record("cpu", "ncf", "adam"),
        record("cpu", "ncf", "adam_lawn", bytes=999),
        record("cpu", "ncf", "adam_lawn", bytes=80, temporary=2.4),  # the last one counts
        record("cpu", "block", "adam"),
        record("cpu", "block", "adam_lawn", bytes=90, time=2.4),
    ]
    lines = cost_tables.report(cost_tables.index(found), tmp_path).splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if "|" in line]
    goals = {(row[0].split(",")[0], row[1]): row[2:] for row in rows if len(row) == 4}
    bytes_, memory = "bytes of a step to Adam's", "temporary memory beyond Adam's"
    assert goals[bytes_, "On CPU"] == ["2.00", "2.25"]
    assert goals[memory, "On CPU"] == ["1.00", "1.00"]  # 2.4 bytes * 100 to 4 bytes * 60
    assert goals["time of a step to Adam's: block", "On CPU"] == ["2.50", "2.40"]
    assert goals[bytes_, "On a GPU"] == ["1.75", "not yet run"]
    missing = [line for line in lines if line.startswith("Not yet run")]
    assert "--trees vgg19 resnet50 --out benchmarks/records/" in missing[0]
    assert any("--workloads ncf --batches 1000 10000" in line for line in missing)


def test_forms_stand_beside_each_other():
    adam = record("cpu", "ncf", "adam")
    forms = {
        "0-first": [adam, record("cpu", "ncf", "adam_lawn", bytes=104, time=3.0)],
        "1-second": [adam, record("cpu", "ncf", "adam_lawn", bytes=80, time=2.0)],
    }
    _, _, first, second = cost_tables.compare_history(forms).splitlines()
    assert first.startswith("| 0-first ")
    assert " 2.60 " in first
    assert " 2.00 (1.00 to 1.00) " in second


def test_compiled_forms_stand_beside_each_other():
    adam = record("compiled for gpu", "ncf", "adam", bytes=28)
    forms = {
        "0-first": [adam, record("compiled for gpu", "ncf", "adam_lawn", bytes=56, kernels=9)],
        "1-second": [adam, record("compiled for gpu", "ncf", "lamb_lawn", bytes=49)],
    }
    rows = cost_tables.compare_compiled(forms).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert cells[0][:3] == ["0-first", "ncf", "adam_lawn"]
    assert cells[0][3:] == ["56", "28", "2.00", "0.0", "9", "0", "compiled for gpu"]
    assert cells[1][:6] == ["1-second", "ncf", "lamb_lawn", "49", "28", "1.75"]
