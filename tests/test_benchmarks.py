"""The contenders of the benchmarks compute the same thing, and what is recorded is what the page shows."""

import json
from collections.abc import Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import marks, rendering
from benchmarks.contenders import ours
from benchmarks.contenders.contender import Contender
from benchmarks.contenders.hand_written import HandWritten, HandWrittenTraining
from benchmarks.contenders.stock_pyro import StockPyro
from benchmarks.interleaving import WARM_UP, against_fit, in_turns
from benchmarks.problem import Problem
from benchmarks.results import Bar, Result, Spread, ratios
from benchmarks.training import check_same_model, fast_peers, fastest_of_family

PROBLEM = Problem(features=12, hidden=7, latent_dim=3, batch=5, steps=4)


@pytest.mark.parametrize("particles", [1, 6])
def test_hand_written_loss_and_gradients_are_ours_on_the_same_draws(particles: int):
    problem = PROBLEM.with_(particles=particles)
    weights, x = problem.weights(), problem.synthetic()[:5]
    model, guide = ours.zoo_pair(problem, weights)
    module = HandWritten(problem, weights)
    torch.manual_seed(1)
    loss = ours.objective(problem).differentiable_loss(model, guide, x) / len(x)
    torch.manual_seed(1)
    by_hand = module.loss(x)
    torch.testing.assert_close(by_hand, loss, rtol=1e-12, atol=0)
    loss.backward()
    by_hand.backward()
    own = {"encoder": guide.posterior.net.layers, "decoder": model.decoder.net.layers}
    for name, parameter in module.named_parameters():
        network, _, rest = name.partition(".")
        torch.testing.assert_close(parameter.grad, own[network].get_parameter(rest).grad, rtol=1e-9, atol=1e-12)


@pytest.fixture
def single_precision() -> Iterator[None]:
    """Pythae and NumPyro compute in float32, whatever the default is."""
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("peer", ["stock_pyro", "hand_written", "numpyro", "pythae"])
def test_every_contender_has_our_log_weights(peer: str):
    weights, x = PROBLEM.weights(), PROBLEM.synthetic()
    contender: Contender
    if peer == "stock_pyro":
        contender = StockPyro(PROBLEM, weights, x, num_threads=1)
    elif peer == "hand_written":
        contender = HandWrittenTraining(PROBLEM, weights, x, num_threads=1)
    elif peer == "numpyro":
        pytest.importorskip("numpyro", reason="it comes with the extra [bench]")
        from benchmarks.contenders.numpyro_svi import NumPyro

        contender = NumPyro(PROBLEM, weights, x, whole_epochs=False)
    else:
        pytest.importorskip("pythae", reason="it comes with the extra [bench]")
        from benchmarks.contenders.pythae_vae import Pythae

        contender = Pythae(PROBLEM, weights, x, num_threads=1)
    check_same_model(PROBLEM, weights, x, [contender])


@pytest.mark.parametrize("particles", [1, 100])
def test_numpyro_has_our_bound_within_the_error_of_its_draws(particles: int):
    pytest.importorskip("numpyro", reason="it comes with the extra [bench]")
    import jax
    from numpyro.infer import RenyiELBO, Trace_ELBO

    from benchmarks.contenders.numpyro_svi import NumPyroPrograms

    problem = PROBLEM.with_(particles=particles)
    weights, x = problem.weights(), problem.synthetic()[:5]
    programs = NumPyroPrograms(problem, weights)
    bound = Trace_ELBO() if particles == 1 else RenyiELBO(alpha=0, num_particles=particles)
    keys = jax.random.split(jax.random.PRNGKey(0), 400)
    loss = jax.vmap(lambda key: bound.loss(key, {}, programs.model, programs.guide, x.numpy()))
    theirs = torch.tensor(loss(keys).tolist())
    pair = ours.zoo_pair(problem, weights)
    own = torch.tensor([ours.objective(problem).loss(*pair, x) for _ in range(400)])
    error = ((theirs.var() + own.var()) / 400).sqrt()
    assert (theirs.mean() - own.mean()).abs() < 5 * error


def test_another_model_is_noticed():
    weights, x = PROBLEM.weights(), PROBLEM.synthetic()
    other = HandWrittenTraining(PROBLEM, PROBLEM.weights(seed=1), x, num_threads=1)
    with pytest.raises(RuntimeError, match="computes another model"):
        check_same_model(PROBLEM, weights, x, [other])


def test_every_contender_trains():
    problem = PROBLEM.with_(steps=200)
    weights, x = problem.weights(), problem.synthetic()
    z = torch.zeros(len(x), problem.latent_dim)  # the likeliest; what is learnt first is how frequent each value is
    for contender in (StockPyro(problem, weights, x, 1), *fast_peers(problem, weights, x)):
        before = contender.log_weight(x[:50], z[:50]).mean()
        contender.run(200)
        between = contender.log_weight(x[:50], z[:50]).mean()
        contender.run(200)  # a turn goes on where the last one ended
        after = contender.log_weight(x[:50], z[:50]).mean()
        assert before + 0.3 < between < after, contender.name


@pytest.mark.parametrize("particles", [1, 4])
def test_operations_of_a_step_are_counted_right(particles: int):
    problem = PROBLEM.with_(particles=particles)
    module = HandWritten(problem, problem.weights())
    with FlopCounterMode(display=False) as counter:
        module.loss(problem.synthetic()[: problem.batch]).backward()
    assert problem.flops() == counter.get_total_flops()


def test_fit_and_its_peers_take_turns(capsys):
    weights, x = PROBLEM.weights(), PROBLEM.synthetic()
    peers = [HandWrittenTraining(PROBLEM, weights, x, 1), StockPyro(PROBLEM, weights, x, 1)]
    times, hopeless = against_fit(PROBLEM, weights, x, peers, rounds=3, peer_steps=2, compile=False)
    assert list(times) == ["ours", "hand-written PyTorch, 1 thread", "stock Pyro SVI, 1 thread"]
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in times.values())
    assert hopeless == {}
    assert f"round {WARM_UP + 3} of {WARM_UP + 3}" in capsys.readouterr().out


def test_only_rounds_after_the_first_count():
    calls: list[str] = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert [len(seconds) for seconds in times.values()] == [2, 2]


def test_fastest_variant_of_a_family_is_that_of_the_smallest_median():
    weights, x = PROBLEM.weights(), PROBLEM.synthetic()
    one, two = (HandWrittenTraining(PROBLEM, weights, x, count) for count in (1, 2))
    times = {one.name: [1.0, 3.0, 3.0], two.name: [2.0, 2.0, 9.0]}
    assert fastest_of_family(times, [one, two]) == {"hand-written PyTorch": two.name}


def test_ratios_are_taken_round_by_round():
    assert ratios([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == Spread(1.0, 2.0, 3.0)


def test_bars_are_judged_by_the_median():
    spread = Spread(0.5, 1.0, 8.0)
    assert Bar("speed-up", spread, 1.0, at_least=True).met
    assert not Bar("speed-up", spread, 1.1, at_least=True).met
    assert Bar("time", spread, 1.0, at_least=False).met
    assert not Bar("time", spread, 0.9, at_least=False).met


def test_results_survive_their_file():
    bar = Bar("speed-up", Spread(1.0, 2.0, 3.0), 1.5, at_least=True)
    result = Result("title", [{"contender": "ours", "ms": Spread(0.1, 0.2, 0.3), "rate": 5.0}], [bar], ["note"])
    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_rendering_puts_tables_between_the_markers_and_nowhere_else():
    bar = Bar("speed-up", Spread(1.0, 2.0, 3.0), 2.5, at_least=True)
    rows = [{"contender": "ours", "ms": 12.3}, {"contender": "peer", "ms": Spread(0.1, 0.2, 1234.0), "rate": 5.0}]
    machine = {"processor": "P", "instructions": "I", "cores": 2, "threads": 2, "system": "S"}
    machine |= {"python": "3", "torch": "2", "date": "today"}
    record = {"machine": machine, "seconds": 1, "result": Result("title", rows, [bar], ["note"]).as_json()}
    begin, end = "<!-- results: begin -->", "<!-- results: end -->"
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    text = rendering.results({"name": record})
    rendered = marks.filled(page, rendering.MARK, text)
    assert rendered.startswith(f"before\n{begin}\n")
    assert rendered.endswith(f"{end}\nafter\n")
    assert "old" not in rendered
    assert "`name`: P (I), 2 cores, 2 threads, S; python 3, torch 2; today.\n" in rendered
    assert "| speed-up | ≥ 2.5 | 2.00 (1.00 – 3.00) | **not met** |" in rendered
    assert "| ours | 12.3 |  |\n| peer | 0.200 (0.100 – 1,234) | 5.00 |" in rendered
    assert marks.filled(rendered, rendering.MARK, text) == rendered


def test_page_shows_what_is_recorded():
    records, page = rendering.read(), rendering.PAGE.read_text()
    if not records:
        pytest.skip("nothing is recorded yet")
    assert marks.filled(page, rendering.MARK, rendering.results(records)) == page
