"""Made records, as the sweep would write them."""


def record(run, final, **more):
    """The record of a run that ended with the scores in `final`."""
    return {
        "config": run.config(),
        "seed": run.first_seed,
        "final": final,
        "device": "cpu",
        "versions": {"commit": "abc"},
        **more,
    }
