"""`lkspace verify`: longer trainings of a run's front and of others, to see how far its proxy can be trusted."""

import math
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from lkspace.data import load
from lkspace.errors import RunError, UserError
from lkspace.processor import cores
from lkspace.scores.memory import give_back, ran_out
from lkspace.scores.score import Diverged, Setting
from lkspace.search.cluster import check_gpus, ray_cluster, scratch_folder, trial_slots
from lkspace.search.driver import Interrupted, not_comparable, standard_of
from lkspace.search.lock import run_lock
from lkspace.search.progress import bar, say
from lkspace.search.room import Room
from lkspace.space.architecture import Architecture
from lkspace.study import Study
from lkspace.study.record import Trial
from lkspace.study.trust import Longer

_EPOCHS = re.compile(r"(\d+)(x?)", re.ASCII)


@dataclass(frozen=True)
class _Training:
    """One that is to be made. alone: while no other runs, which could take its memory."""

    trial: Trial
    setting: Setting
    alone: bool = False


def verify(
    folder: str | Path,
    *,
    top: int = 8,
    epochs: str = "5x",
    seeds: int = 3,
    concurrency: int | None = None,
    gpus_per_trial: float | None = None,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Train `top` members of the front and as many other candidates again, longer, and measure their latency anew.

    epochs: of a longer training, "20", or "5x" for five times the run's. seeds: trainings of each candidate, which
    differ in initial weights and order of images, from each other and from the run's. The others are complete trials
    and ones that were stopped early, whose proxy training is then made whole: without those, the order would be that
    of survivors. Every training is kept in the study at once; what is there already is not done again.
    gpus_per_trial: of a training, 1 if the run was made on a GPU. The study's `trust` says what came of it.

    Raises UserError if the call is wrong or there is nothing to verify, RunError if it cannot go on, Interrupted on
    Ctrl-C.
    """
    study = Study.open(folder, writable=True)
    if study.folder is None:
        raise UserError(f"{folder} names no run's folder: the longer trainings need the one that the run was made in")
    setting = Setting(**study.plan.setting)
    gpus = _gpus(setting, gpus_per_trial, address)
    length = _length(epochs, setting.epochs)
    chosen = _chosen(study, top)
    if seeds < 1:
        raise UserError(f"seeds is {seeds}, expected at least 1")
    missing = _missing(study, chosen, setting, length, seeds)
    with run_lock(study.folder) as lock, scratch_folder() as scratch:
        lock.remember(scratch)
        try:
            if missing:
                with bar(console, "reading images") as progress:
                    images = load(setting.data, setting.size, setting.cache, progress)
                if images.key != study.plan.environment.get("data_key", images.key):
                    raise UserError(
                        f"the files of {setting.data}, or how lkspace reads them, have changed since the run:"
                        " put them back to verify it"
                    )
                missing = [replace(m, setting=replace(m.setting, data_key=images.key)) for m in missing]
            here = address is None and not gpus  # this process measures, on the machine of the run as far as it knows
            standard = standard_of(study)
            if address is None and (remark := not_comparable(study)):
                say(console, remark)
            if missing:
                shorter = "up to " if any(m.setting.epochs < length for m in missing) else ""
                say(console, f"{len(missing)} trainings of {shorter}{length} epochs")
            cpus = setting.threads * (concurrency or max(1, cores() // setting.threads))
            with ray_cluster(scratch, address, cpus=cpus, gpus=gpus):
                slots = trial_slots(setting.threads, gpus)
                slots = min(slots, concurrency or slots)
                room = Room.of(setting, slots, gpus) if address is None else None
                _train(study, missing, slots, gpus, room, console)
                _measure(study, chosen, replace(setting, standard=standard), gpus, here, console)
        except KeyboardInterrupt:
            raise Interrupted(study) from None
    return study


def _gpus(setting: Setting, asked: float | None, address: str | None) -> float:
    """GPUs of one training, on the kind of device that the run was made on."""
    on_gpu = setting.device.startswith("cuda")
    if on_gpu and address is None and not torch.cuda.is_available():
        raise UserError("the run was made on a GPU, and torch finds none here: verify it where there is one")
    if asked is None:
        return 1.0 if on_gpu else 0.0
    if not math.isfinite(asked) or (asked > 0) != on_gpu:
        wanted = "more than 0: the run was made on a GPU" if on_gpu else "0: the run was made on the CPU"
        raise UserError(f"gpus_per_trial is {asked:g}, expected {wanted}")
    check_gpus(asked, address)
    return asked


def _length(text: str, proxy: int) -> int:
    """Epochs that "20" or "5x" asks for."""
    match = _EPOCHS.fullmatch(text)
    epochs = int(match[1]) * (proxy if match[2] else 1) if match else 0
    if epochs <= proxy:
        raise UserError(f"epochs is {text!r}, expected more than the proxy's {proxy}, as in 5x or {5 * proxy}")
    return epochs


def _chosen(study: Study, top: int) -> list[Trial]:
    """Front members from its best accuracy to its worst, evenly, and as many others at random."""
    if top < 1:
        raise UserError(f"top is {top}, expected at least 1")
    front = [t for t in study.front() if "accuracy" in t.values]
    if not front:
        raise UserError(f"{study.folder} has no front with accuracies yet: there is nothing to verify")
    front.sort(key=lambda t: -t.values["accuracy"])
    places = np.linspace(0, len(front) - 1, min(top, len(front))).round().astype(int)
    members = {t.number for t in front}
    trained = [t for t in study.trials if t.outcome in ("complete", "stopped") and "accuracy" in t.values]
    others = [t for t in trained if t.feasible and t.number not in members]
    order = np.random.default_rng(study.plan.seed).permutation(len(others))[:top]
    return [front[i] for i in places] + [others[i] for i in sorted(order)]


def _missing(study: Study, chosen: Sequence[Trial], setting: Setting, epochs: int, seeds: int) -> list[_Training]:
    """Trainings that are not there yet: longer ones, and the whole proxy trainings of what was stopped early.

    No longer one has the run's seed: the same weights and the same images in the same order would share its luck.
    """
    there = {(number, run.epochs, run.seed) for number, runs in study.longer().items() for run in runs}
    longer = [replace(setting, epochs=epochs, seed=setting.seed + i) for i in range(1, seeds + 1)]
    wanted = [(t, s) for s in longer for t in chosen] + [(t, setting) for t in chosen if t.outcome == "stopped"]
    return [_Training(t, s) for t, s in wanted if (t.number, s.epochs, s.seed) not in there]


def _train(
    study: Study,
    missing: Sequence[_Training],
    slots: int,
    gpus: float,
    room: Room | None,
    console: Console | None,
) -> None:
    """So many trainings at a time; as in a search, what needs all memory is alone.

    One whose memory was too small, or whose worker died, is made once more, alone, and then left out.
    RunError if nothing of all comes of it.
    """
    import ray

    from lkspace.search.tune import WorkerDied, in_worker, result_of

    def alone(training: _Training) -> bool:
        return slots == 1 or (room is not None and not room.shares(training.trial.architecture))

    waiting = deque(replace(training, alone=alone(training)) for training in missing)
    running: dict[ray.ObjectRef[Longer | None], _Training] = {}
    lost = list[int]()
    done = 0
    with bar(console, "training longer") as progress:
        while waiting or running:
            while waiting and len(running) < slots:
                if running and (waiting[0].alone or any(training.alone for training in running.values())):
                    break
                training = waiting.popleft()
                setting = training.setting
                task = in_worker(_longer, setting, gpus, retries=2)
                running[task.remote(training.trial.architecture.to_json(), setting)] = training
            if progress is not None:
                progress(done, len(missing))
            (ended,), _ = ray.wait(list(running), num_returns=1)
            training = running.pop(ended)
            number = training.trial.number
            try:
                result: Longer | None = result_of(ended, f"trial {number} cannot be trained longer")
            except WorkerDied:
                result = None
            if result is None and not training.alone:
                waiting.append(replace(training, alone=True))
                continue
            if result is None:
                lost.append(number)
            else:
                study.trained_longer(number, result)
            done += 1
    if lost:
        which = ", ".join(map(str, sorted(set(lost))))
        text = f"no memory for {len(lost)} of {len(missing)} trainings, with nothing beside them either: trial {which};"
        text += " the same command tries them again"
        if len(lost) == len(missing):
            raise RunError(text)
        say(console, text)


def _longer(architecture: str, setting: Setting) -> Longer | None:
    """One training, in a worker; None if memory ran out."""
    from lkspace.scores.accuracy import Accuracy
    from lkspace.search.trainable import prepare_process

    prepare_process(setting)
    start = time.perf_counter()
    accuracy: float | None = None
    enough = True
    try:
        *_, last = Accuracy().measure(Architecture.from_json(architecture), setting)
        accuracy = last.value
    except Diverged:
        pass
    except Exception as error:
        if not ran_out(error):
            raise
        enough = False
    give_back(setting.device)  # only now, when an error and all that it held are gone: this process may stay
    return Longer(setting.epochs, setting.seed, accuracy, time.perf_counter() - start) if enough else None


def _measure(
    study: Study, chosen: Sequence[Trial], setting: Setting, gpus: float, here: bool, console: Console | None
) -> None:
    """Latency now, of candidates that have one."""
    from lkspace.search.tune import measure

    timed = [t for t in chosen if "latency" in t.values]
    with bar(console, "measuring latency") as progress:
        for done, trial in enumerate(timed, start=1):
            try:
                found = measure("latency", trial.architecture, setting, gpus, here=here)
                study.remeasured(trial.number, {"latency": found})
            except RunError as error:
                say(console, f"trial {trial.number}: {error}")
            if progress is not None:
                progress(done, len(timed))
