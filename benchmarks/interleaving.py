"""Several contenders timed in turns, so that whatever else the machine does meets all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from time import perf_counter, sleep

from torch import Tensor

from benchmarks.contenders import ours
from benchmarks.contenders.contender import Contender
from benchmarks.problem import Problem, Weights

WARM_UP = 2  # rounds that do not count: compilation, first touches of memory

REST = 0.1  # seconds before a turn: the threads of the last one's libraries wait for work by spinning

HOPELESS = 2  # times its family's fastest variant, in the first round

Times = dict[str, list[float]]  # name -> seconds, one number a round


def in_turns(tasks: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> Times:
    """Seconds of each task in each round; who begins moves on from round to round."""
    names = list(tasks)
    times: Times = {name: [] for name in names}
    for turn in range(warm_up + rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            sleep(REST)
            start = perf_counter()
            tasks[name]()
            seconds = perf_counter() - start
            if turn >= warm_up:
                times[name].append(seconds)
        show_progress(turn + 1, warm_up + rounds)
    return times


def against_fit(
    problem: Problem,
    weights: Weights,
    x: Tensor,
    peers: Sequence[Contender],
    rounds: int,
    peer_steps: int,
    compile: bool,
) -> tuple[Times, dict[str, float]]:
    """Seconds a step of `fit` and of its peers, which run in its `on_epoch`, between two of its epochs.

    An epoch of `fit` is what passes between two calls of `on_epoch`: the steps, and all else it does for a user.

    Args:
        problem, weights, x: the task.
        peers: the others.
        rounds: how many are measured, after `WARM_UP` more.
        peer_steps: steps of a peer's turn.
        compile: as `fit` takes it.

    Returns:
        The times, and those of variants that were not measured further, as another of their family is much faster.
    """
    race = _Race(peers, problem.steps, peer_steps, rounds)
    ours.train(problem, weights, x, WARM_UP + rounds, compile, race.between_epochs)
    return race.times, race.hopeless


class _Race:
    """What happens between two epochs of `fit`."""

    def __init__(self, peers: Sequence[Contender], own_steps: int, peer_steps: int, rounds: int) -> None:
        self.times: Times = {ours.NAME: []}
        self.hopeless: dict[str, float] = {}
        self._peers, self._own_steps, self._peer_steps, self._rounds = list(peers), own_steps, peer_steps, rounds
        self._turn, self._start = 0, perf_counter()

    def between_epochs(self, row: dict[str, float]) -> bool:
        """Ends the measurement of ours, gives every peer its turn, and says whether that was all."""
        seconds = {ours.NAME: (perf_counter() - self._start) / self._own_steps}
        first = self._turn % max(1, len(self._peers))
        for peer in self._peers[first:] + self._peers[:first]:
            start = perf_counter()
            peer.run(self._peer_steps)
            seconds[peer.name] = (perf_counter() - start) / self._peer_steps
        self._turn += 1
        if self._turn == 1:
            self._drop_the_hopeless(seconds)
        if self._turn > WARM_UP:
            for name, value in seconds.items():
                self.times[name].append(value)
        show_progress(self._turn, WARM_UP + self._rounds)
        self._start = perf_counter()
        return self._turn == WARM_UP + self._rounds

    def _drop_the_hopeless(self, seconds: dict[str, float]) -> None:
        best: dict[str, float] = {}
        for peer in self._peers:
            best[peer.family] = min(best.get(peer.family, inf), seconds[peer.name])
        slow = [peer for peer in self._peers if seconds[peer.name] > HOPELESS * best[peer.family]]
        self.hopeless = {peer.name: seconds[peer.name] for peer in slow}
        self._peers = [peer for peer in self._peers if peer not in slow]
        self.times |= {peer.name: [] for peer in self._peers}  # in their order, whoever is first to run


def show_progress(done: int, rounds: int) -> None:
    """One line that is written over."""
    print(f"\r  round {done} of {rounds}", end="\n" if done == rounds else "", flush=True)
