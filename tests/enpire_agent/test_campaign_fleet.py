"""A campaign whose peers are there, but not their remote: research goes on."""

import time

from enpire_agent.git_command import run_git
from enpire_agent.recipe_history import origins_behind, tried_by_peers
from enpire_agent.recipe_repository import RecipeRepository
from enpire_agent.researcher import PeerRecipe


def test_a_peers_remote_that_is_away_costs_one_attempt_and_no_trial(make_campaign, tmp_path, monkeypatch):
    asked = []

    def fetch(self, remote, campaign, timeout):
        asked.append((remote, timeout))
        return real(self, remote, campaign, timeout)

    real = RecipeRepository.fetch
    monkeypatch.setattr(RecipeRepository, 'fetch', fetch)
    peers = [PeerRecipe(
        station=f'station_{number}', task='push_t', env_hash='e' * 64, remote=str(tmp_path / 'away.git'),
        commit=str(number) * 40, method='m', hypothesis='better', decision='keep', trials=20, successes=20,
        interval=(0.83, 1.0)) for number in (2, 3)]
    campaign, world, recorder = make_campaign(peers=peers, max_iterations=3)
    began = time.monotonic()

    state = campaign.run()

    assert len(state.iterations) == 3 and not any(iteration.adopts for iteration in state.iterations)
    assert [remote for remote, _ in asked] == [str(tmp_path / 'away.git')] and asked[0][1] <= 15
    assert any('cannot adopt 2222222222' in text for kind, _, text, _ in recorder.events if kind == 'error')
    assert time.monotonic() - began < 60


def test_a_recipe_that_was_fetched_is_adopted_while_the_remote_is_away(make_campaign, tmp_path, recipe):
    campaign, world, _ = make_campaign(max_iterations=1)
    peer = RecipeRepository.open_or_create(tmp_path / 'peer', 'station_2', recipe)
    text = (peer.work_tree / 'recipe.yaml').read_text()
    peer.write({'recipe.yaml': text.replace('curve: false', 'curve: true').replace('lead: 0.0 ', 'lead: 0.01 ')})
    (peer.work_tree / 'notes').mkdir()
    (peer.work_tree / 'notes' / 'table.bin').write_bytes(bytes(range(256)))
    commit = peer.commit('Curve and lead', {'Decision': 'keep'})
    remote = tmp_path / 'remote.git'
    peer.push(str(remote), 'c')
    RecipeRepository(world.work_tree).fetch(str(remote), 'c')
    remote.rename(tmp_path / 'away.git')
    announced = [PeerRecipe(
        station='station_2', task='push_t', env_hash='e' * 64, remote=str(remote), commit=commit, method='m',
        hypothesis='Curve and lead', decision='keep', trials=50, successes=49, interval=(0.9, 1.0))]

    campaign, world, _ = make_campaign(peers=announced, max_iterations=1)
    state = campaign.run()

    assert state.iterations[0].adopts == commit and state.best.adopted_from == 'station_2'
    assert (world.work_tree / 'notes' / 'table.bin').read_bytes() == bytes(range(256))


def test_what_peers_kept_and_rejected_is_evidence_here(make_campaign, tmp_path, recipe):
    """A peer found that a higher gain harms and a curve helps: this station adopts the curve and refines that."""
    campaign, world, _ = make_campaign(max_iterations=2, goal=2.0, search_trials=4)
    peer = RecipeRepository.open_or_create(tmp_path / 'peer', 'station_2', recipe)
    text = (peer.work_tree / 'recipe.yaml').read_text()
    common = {'Task': 'push_t', 'Env-Hash': 'e' * 64, 'Method': 'path', 'Trials': 8}
    peer.write({'recipe.yaml': text.replace('gain: 1.0 ', 'gain: 2.0 ')})
    peer.revert(peer.commit('A higher gain', {**common, 'Origin': 'idea:harder#0', 'Successes': 1, 'Decision': 'revert'}))
    peer.write({'recipe.yaml': text.replace('curve: false', 'curve: true')})
    commit = peer.commit('A curve', {**common, 'Origin': 'idea:curved#0', 'Successes': 8, 'Decision': 'keep'})
    peer.commit('Elsewhere', {**common, 'Origin': 'idea:harder#1', 'Decision': 'revert', 'Env-Hash': 'f' * 64})
    run_git(peer.work_tree, 'commit', '--allow-empty', '-m', 'Odd \x1f\x1e\x1f\n\nDecision: keep\nOrigin: idea:harder#1')
    peer.push(str(tmp_path / 'remote.git'), 'c')
    own = RecipeRepository(world.work_tree)
    own.fetch(str(tmp_path / 'remote.git'), 'c')
    assert [(tried.origin, tried.kept, tried.successes) for tried in tried_by_peers(own.work_tree, 'push_t', 'e' * 64)
            ] == [('idea:harder#0', False, 1), ('idea:curved#0', True, 8)]

    campaign, world, _ = make_campaign(max_iterations=2, goal=2.0, search_trials=4, peers=[PeerRecipe(
        station='station_2', task='push_t', env_hash='e' * 64, remote='', commit=commit, method='path',
        hypothesis='A curve', decision='keep', trials=50, successes=49, interval=(0.9, 1.0))])
    world.rate_of = lambda parameters: 0.2 + 0.7 * parameters['curve']
    state = campaign.run()

    assert [iteration.origin for iteration in state.iterations] == [f'adopt:station_2/{commit}', 'idea:lead#0']
    assert origins_behind(world.work_tree) >= {'idea:curved#0'}
