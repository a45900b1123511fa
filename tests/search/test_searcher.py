"""The searcher without Ray's processes: what Tune would call is called here, on a real SQLite study."""

import errno
import threading

import pytest
from optuna.exceptions import StorageInternalError

from lkspace import registry
from lkspace.errors import RunError
from lkspace.scores.memory import training_bytes
from lkspace.scores.quiet import Device
from lkspace.scores.score import Measurement, Setting
from lkspace.search.candidates import Candidates, cheap_scores
from lkspace.search.checkpoint import NAME
from lkspace.search.evaluate import Report
from lkspace.search.progress import Display
from lkspace.search.propose import Proposer
from lkspace.search.room import Room
from lkspace.search.searcher import StudySearcher
from lkspace.space.architecture import Architecture
from lkspace.space.search_space import SearchSpace
from lkspace.study import Study
from lkspace.study.storage import lost

SETTING = Setting(data="digits", size=32, classes=10)


def searcher(study, space, budget=6, concurrency=2, room=None):
    tried = [t.id for t in study.trials]
    candidates = Candidates(space, cheap_scores(space, SETTING, []), [], tried, room=room)
    proposer = Proposer(study, candidates, registry.samplers.get("random"), 0, budget)
    display = Display(study, budget, None, 1)
    return StudySearcher(study, proposer, display, budget=budget, concurrency=concurrency, room=room)


def complete(space, config):
    costs = space.costs(Architecture.from_json(config["architecture"]))
    return {"report": Report({n: Measurement(v) for n, v in costs.items()}, outcome="complete")}


def test_the_budget_is_handed_out_at_the_given_concurrency(new_study, micro):
    study = new_study()
    searching = searcher(study, micro)
    running = {}
    handed = []
    for step in range(100):
        config = searching.suggest(f"t{step}")
        if config == searching.FINISHED:
            break
        if config is None:
            done = next(iter(running))
            searching.on_trial_complete(done, complete(micro, running.pop(done)))
        else:
            running[f"t{step}"] = config
            handed.append(config["number"])
            assert len(running) <= 2
    assert handed == list(range(6))
    assert study.counts()["complete"] == 6
    assert not study.pending()


def test_trials_of_a_killed_driver_come_first_under_their_numbers(new_study, micro):
    study = new_study()
    first = searcher(study, micro, concurrency=3)
    configs = [first.suggest(f"a{i}") for i in range(3)]
    first.on_trial_complete("a1", complete(micro, configs[1]))
    second = searcher(Study.open(study.folder, writable=True), micro, concurrency=6)
    again = [second.suggest(f"b{i}") for i in range(7)]
    assert again[:2] == [configs[0], configs[2]]
    assert [c["number"] for c in again[2:5]] == [3, 4, 5]
    assert again[5] is None  # not finished: a worker may still die


@pytest.mark.parametrize(
    ("report", "outcome", "state"),
    [
        (Report(outcome="diverged", reason="loss is nan"), "diverged", "FAIL"),
        (Report(outcome="failed", reason="out of memory"), "failed", "FAIL"),
        (Report(outcome="infeasible", reason="latency"), "infeasible", "PRUNED"),
        (Report({"params": Measurement(3.0)}, outcome="complete"), "failed", "FAIL"),
    ],
)
def test_every_ending_gets_its_state(new_study, micro, report, outcome, state):
    study = new_study()
    searching = searcher(study, micro)
    searching.suggest("t")
    searching.on_trial_complete("t", {"report": report})
    trial = study.trials[0]
    assert trial.outcome == outcome
    assert trial.reason
    assert study._optuna.get_trials()[0].state.name == state


def test_a_trial_that_has_ended_keeps_no_checkpoint(new_study, micro):
    study = new_study()
    searching = searcher(study, micro)
    configs = [searching.suggest("a"), searching.suggest("b")]
    folders = [study.folder / "trials" / str(config["number"]) for config in configs]
    for folder in folders:
        folder.mkdir(parents=True)
        for name in (NAME, f".{NAME}.1234", "curve.json"):
            (folder / name).touch()
    searching.on_trial_complete("a", complete(micro, configs[0]))
    searching.on_trial_complete("b", error=True)  # will be taken up again
    assert sorted(p.name for p in folders[0].iterdir()) == ["curve.json"]
    assert (folders[1] / NAME).is_file()


@pytest.mark.parametrize("ending", [{"error": True}, {"result": None}, {"result": {}}, {"result": {"report": 3}}])
def test_a_dead_worker_is_tried_twice_more_and_then_recorded(new_study, micro, ending):
    study = new_study()
    searching = searcher(study, micro, budget=1)
    configs = []
    for attempt in range(3):
        assert study.trials == [] or study.trials[0].outcome == "running"
        configs.append(searching.suggest(f"t{attempt}"))
        searching.on_trial_complete(f"t{attempt}", **ending)
    assert configs[0] == configs[1] == configs[2]
    assert searching.suggest("t3") == searching.FINISHED
    assert (study.trials[0].outcome, len(study.trials)) == ("failed", 1)
    assert "died 3 times" in study.trials[0].reason


def test_a_candidate_that_runs_out_of_memory_is_tried_alone_and_then_infeasible(new_study, micro):
    study = new_study()
    searching = searcher(study, micro, budget=4, concurrency=2)
    first, beside = searching.suggest("a"), searching.suggest("b")
    memory = {"report": Report({"params": Measurement(1.0)}, outcome="memory", reason="out of memory: 80 GiB")}
    searching.on_trial_complete("a", memory)
    assert searching.suggest("c") is None  # until the other one has ended
    assert study.trials[0].outcome == "running"
    searching.on_trial_complete("b", complete(micro, beside))
    assert searching.suggest("d") == first
    assert searching.suggest("e") is None  # nothing beside it
    searching.on_trial_complete("d", memory)
    trial = study.trials[0]
    assert (trial.outcome, trial.reason) == ("infeasible", "out of memory: 80 GiB, with nothing beside it")
    assert trial.values == {"params": 1.0}
    assert not trial.feasible
    assert [searching.suggest(name)["number"] for name in "fg"] == [2, 3]


def test_what_cannot_fit_the_device_costs_no_trial(new_study, micro):
    study = new_study()
    needs = sorted(training_bytes(a, SETTING) for a in micro.enumerate())
    room = Room(SETTING, needs[len(needs) // 8], 1)  # most of the space, and its reference point
    searching = searcher(study, micro, budget=12, room=room)
    while (config := searching.suggest("a")) != searching.FINISHED:
        searching.on_trial_complete("a", complete(micro, config))
    assert study.counts()["complete"] == 12
    assert all(training_bytes(t.architecture, SETTING) <= room.bytes for t in study.trials)
    rejected = study.rejected()
    assert rejected[str(room)] > 8
    assert rejected[f"reference point: {room}"] == 1


def test_suggestions_wait_for_what_is_being_measured(new_study, micro):
    """A driver that computes them beside a measurement would be in it."""
    study, device = new_study(), Device("cpu")
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []))
    proposer = Proposer(study, candidates, registry.samplers.get("random"), 0, 3)
    display = Display(study, 3, None, 1)
    searching = StudySearcher(study, proposer, display, budget=3, concurrency=3, device=device)
    handed = threading.Thread(target=lambda: searching.suggest("a"))
    with device.exclusive():
        handed.start()
        handed.join(0.3)
        assert handed.is_alive()
        assert not study.trials
    handed.join(10)
    assert [t.number for t in study.trials] == [0]


def test_what_fits_the_device_but_not_beside_another_runs_alone(new_study, micro):
    study = new_study()
    largest = max(training_bytes(a, SETTING) for a in micro.enumerate())
    searching = searcher(study, micro, budget=3, concurrency=2, room=Room(SETTING, largest, 1000))
    first = searching.suggest("a")
    assert searching.suggest("b") is None
    searching.on_trial_complete("a", complete(micro, first))
    assert searching.suggest("c")["number"] == 1
    assert searching.suggest("d") is None


def test_what_must_run_alone_stays_alone_when_its_worker_dies(new_study, micro):
    largest = max(training_bytes(a, SETTING) for a in micro.enumerate())
    searching = searcher(new_study(), micro, budget=3, concurrency=2, room=Room(SETTING, largest, 1000))
    first = searching.suggest("a")
    searching._memory = None  # the next ones would fit beside others
    searching.on_trial_complete("a", error=True)
    assert searching.suggest("b") == first
    assert searching.suggest("c") is None


def test_a_second_chance_alone_may_succeed(new_study, micro):
    study = new_study()
    searching = searcher(study, micro, budget=1)
    config = searching.suggest("a")
    searching.on_trial_complete("a", {"report": Report(outcome="memory", reason="out of memory")})
    assert searching.suggest("b") == config
    searching.on_trial_complete("b", complete(micro, config))
    assert searching.suggest("c") == searching.FINISHED
    assert [t.outcome for t in study.trials] == ["complete"]


def test_a_run_in_which_nothing_has_memory_enough_is_given_up(new_study, micro):
    searching = searcher(new_study(), micro, budget=40, concurrency=1)
    memory = {"report": Report(outcome="memory", reason="out of memory: the batch is too large")}
    for step in range(15):
        searching.suggest(f"t{step}")
        searching.on_trial_complete(f"t{step}", memory)
    searching.suggest("t15")
    with pytest.raises(RunError, match="first 8 trials all failed, the last one because: out of memory"):
        searching.on_trial_complete("t15", memory)


def test_a_report_without_a_verdict_is_a_lost_worker(new_study, micro):
    study = new_study()
    searching = searcher(study, micro)
    searching.suggest("t0")
    searching.on_trial_complete("t0", {"report": Report()})
    assert study.pending()


def test_a_full_disk_ends_the_run_and_leaves_the_trial_to_be_done(new_study, micro):
    study = new_study()
    searching = searcher(study, micro)
    searching.suggest("t0")
    with pytest.raises(RunError, match="disk full"):
        searching.on_trial_complete("t0", {"report": Report(fatal="disk full")})
    assert isinstance(searching.error, RunError)
    assert searching.suggest("t1") == searching.FINISHED
    assert [t.number for t in study.pending()] == [0]


def test_a_run_where_everything_fails_from_the_start_is_given_up(new_study, micro):
    study = new_study()
    searching = searcher(study, micro, budget=50)
    broken = {"report": Report(outcome="failed", reason="no GPU")}
    for i in range(7):
        searching.suggest(f"t{i}")
        searching.on_trial_complete(f"t{i}", broken)
    searching.suggest("t7")
    with pytest.raises(RunError, match="first 8 trials all failed, the last one because: no GPU"):
        searching.on_trial_complete("t7", broken)
    assert study.counts()["failed"] == 8


def test_a_run_that_succeeded_before_it_was_continued_is_not_given_up(new_study, micro):
    study = new_study()
    first = searcher(study, micro, budget=1)
    first.on_trial_complete("t", complete(micro, first.suggest("t")))
    searching = searcher(Study.open(study.folder, writable=True), micro, budget=50)
    for i in range(8):
        searching.suggest(f"t{i}")
        searching.on_trial_complete(f"t{i}", {"report": Report(outcome="failed", reason="no GPU")})
    assert study.counts()["failed"] == 8


def test_a_space_without_anything_new_ends_the_search(new_study, micro):
    fields = {**micro.to_dict(), "channels": {"whole": [[4, 8]]}, "blocks": {"per_stage": [[1], [1]]}}
    space = SearchSpace.from_dict({**fields, "reference_points": []})
    study = new_study()
    searching = searcher(study, space, budget=10_000, concurrency=1)
    count = len(list(space.enumerate()))
    for i in range(count):
        config = searching.suggest(f"t{i}")
        searching.on_trial_complete(f"t{i}", complete(space, config))
    assert searching.suggest("last") == searching.FINISHED
    assert searching.exhausted
    assert len({t.id for t in study.trials}) == count == len(study.trials)


def test_a_storage_that_cannot_be_written_ends_the_run_in_one_line(new_study, micro, monkeypatch):
    study = new_study()
    searching = searcher(study, micro)
    config = searching.suggest("t0")

    def full(*_, **__):
        raise StorageInternalError("commit") from OSError("database or disk is full")

    monkeypatch.setattr(study, "finish", full)
    with pytest.raises(RunError, match=r"run: the study cannot be written \(database or disk is full\); free space"):
        searching.on_trial_complete("t0", complete(micro, config))
    assert searching.suggest("t1") == searching.FINISHED


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free space"),
        (OSError(errno.EACCES, "Permission denied"), "see that its storage answers and may be written"),
        (StorageInternalError("server closed the connection"), "see that its storage answers and may be written"),
    ],
)
def test_what_to_do_of_a_study_that_cannot_be_written_goes_by_the_reason(error, mend):
    assert lost(error).endswith(f"; {mend}, then repeat the call")


def test_a_candidate_that_falls_behind_is_stopped_and_keeps_its_values(new_study, micro, fake):
    """As Tune calls: `stops` with each result; on True not `on_trial_result` but `on_trial_complete`."""
    from lkspace.search.stopping import Stopping

    study = new_study(objectives=("fake",))
    candidates = Candidates(micro, cheap_scores(micro, SETTING, []), [])
    proposer = Proposer(study, candidates, registry.samplers.get("random"), 0, 8)
    stopping = Stopping("halving", study.objectives, 2, candidates.features)
    searching = StudySearcher(study, proposer, Display(study, 8, None, 2), budget=8, concurrency=1, stopping=stopping)
    for i, loss in enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 0.5, 9.0, 0.4]):
        config = searching.suggest(f"t{i}")
        costs = complete(micro, config)["report"].measurements
        entry = {"fake": loss, "epoch": 1, "epochs": 2}
        half = {"report": Report({**costs, "fake": Measurement(loss, entry)}, (entry,))}
        if searching.stops(f"t{i}", half):
            searching.on_trial_complete(f"t{i}", half)
            continue
        searching.on_trial_result(f"t{i}", half)
        whole = {**costs, "fake": Measurement(loss / 2)}
        searching.on_trial_complete(f"t{i}", {"report": Report(whole, (entry,), outcome="complete")})
    outcomes = [t.outcome for t in study.trials]
    assert outcomes == ["complete"] * 6 + ["stopped", "complete"]
    assert study.trials[6].values["fake"] == 9.0
    assert study.trials[6].reason == "others of its cost were ahead after epoch 1 of 2"
    assert study._optuna.trials[6].state.name == "PRUNED"
    assert searching.suggest("end") == searching.FINISHED
