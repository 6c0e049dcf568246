"""What the command prints to stdout and to stderr, for people and for scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from patience import PATIENCE_S

REPOSITORY = Path(__file__).parents[2]
RUN_OPTIONS = [
    *("--output-dir", "--base-url", "--sandbox", "--submit-rate", "--max-in-flight", "--deadline"),
    *("--budget", "--select", "--force", "--retry-failed", "--resubmit-unconfirmed", "--dry-run"),
    *("--json", "--quiet", "--verbose", "--log-format", "--progress", "--env-file"),
    *("--callback-url", "--callback-listen"),
]
COMMANDS = ["run", "plan", "status", "ledger", "adopt", "forget", "sandbox", "schema"]


def test_quiet_prints_nothing_on_success(shell: Any, sandbox: Any) -> None:
    """Cron mails only trouble."""
    args = ("run", shell.manifest(), "--base-url", sandbox().base_url, "--quiet")
    for _ in range(2):
        said = shell(*args)
        assert (said.code, said.out, said.err) == (0, "", "")


def test_quiet_prints_no_warnings_on_success(shell: Any, sandbox: Any) -> None:
    """A retired model and another ratio than asked are warnings only."""
    jobs = [{"id": "a", "prompt": "fox", "model": "kling-v1"}]
    box = sandbox("download:wrong-ratio", "submit:drop-after")
    said = shell("run", shell.manifest(jobs), "--base-url", box.base_url, "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_quiet_prints_failures(shell: Any, sandbox: Any) -> None:
    """The failure and its reason; also on the next night, while it lasts."""
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    args = ("run", shell.manifest(jobs), "--base-url", sandbox().base_url, "--quiet")
    said = shell(*args)
    assert said.code == 1
    assert said.out.splitlines()[0] == "night: 1 failed, 1 made"
    assert "bad: failed (moderation)" in said.out
    assert said.err == "", "the log repeats the summary"
    said = shell(*args)
    assert said.code == 1
    assert "bad" in said.out


def test_json_is_one_object_on_stdout(shell: Any, sandbox: Any) -> None:
    """The log goes on on stderr."""
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    box = sandbox()
    args = ("run", shell.manifest(jobs), "--base-url", box.base_url, "--json")
    said = shell(*args)
    summary = said.json
    assert said.out.count("\n") == 1
    assert said.code == summary["exit_code"] == 1
    assert summary["schema"] == 1
    assert summary["outcomes"] == {"succeeded": 1, "failed": 1}
    assert summary["tasks_created"] == 2
    assert summary["troubles"][0]["job_id"] == "bad"
    assert summary["troubles"][0]["error"]["kind"] == "moderation"
    assert "good" in said.err
    quiet_night = shell(*args).json
    assert quiet_night.keys() == summary.keys()
    assert quiet_night["planned"] == {"unchanged": 1, "resting": 1}


@pytest.mark.parametrize("command", [("plan",), ("run", "--dry-run")])
def test_plan_writes_nothing_and_needs_no_key(shell: Any, command: tuple[str, ...]) -> None:
    """It reports what a run would do and cost, also before the first run."""
    manifest = shell.manifest(3, prices={"kling-v2-6": 0.5})
    before = shell.files()
    said = shell(command[0], manifest, *command[1:], key=None)
    assert said.code == 0
    assert "3 new" in said.out
    assert "1.50" in said.out
    as_json = shell(command[0], manifest, *command[1:], "--json", key=None).json
    assert as_json["counts"]["new"] == 3
    assert as_json["cost_usd"] == 1.5
    assert [job["job_id"] for job in as_json["jobs"]] == ["job-0", "job-1", "job-2"]
    assert shell.files() == before


def test_plan_of_finished_folder_changes_no_byte(shell: Any, sandbox: Any) -> None:
    """Not even of the state."""
    box = sandbox()
    manifest = shell.manifest(2)
    shell("run", manifest, "--base-url", box.base_url)
    before = shell.files()
    requests = box.stats.counts()
    said = shell("plan", manifest, "--json", "--base-url", box.base_url)
    assert said.json["counts"]["unchanged"] == 2
    shell("status", "outputs/night")
    assert shell.files() == before
    assert box.stats.counts() == requests


def test_everything_costs_the_same_on_any_night(shell: Any, sandbox: Any) -> None:
    """Where all is to be paid for, a part of it, or nothing."""
    manifest = shell.manifest(3, prices={"kling-v2-6": 0.5})
    run = ("run", manifest, "--base-url", sandbox().base_url, "--quiet")
    for to_pay, selected in ((3, "job-[01]"), (1, "*"), (0, "*")):
        assert shell("plan", manifest, "--json").json["cost_all_usd"] == 1.5
        said = shell("plan", manifest).out
        assert f"about ${to_pay / 2:.2f}; everything once: 3 tasks, about $1.50" in said
        shell(*run, "--select", selected)


def test_json_log_holds_manifest_warnings(shell: Any, sandbox: Any) -> None:
    """Every line of stderr can be parsed."""
    manifest = shell.manifest([{"id": "a", "prompt": "fox", "cfg_scale": 0.5}])
    said = shell("run", manifest, "--base-url", sandbox().base_url, "--log-format", "json")
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert any("cfg_scale" in line["message"] and line["level"] == "warning" for line in lines)


class Yaml12(yaml.SafeLoader):
    """Reads YAML as editors do: no sexagesimals, no `on`."""


Yaml12.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[1] in {"merge", "null", "str"}]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Yaml12.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$"), list("tf"))
Yaml12.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?\d+$"), list("-0123456789"))
Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?\d+\.\d+$"), list("-0123456789")
)


def test_schema_accepts_shipped_manifests(shell: Any) -> None:
    """It is a valid JSON Schema and refuses what the command refuses."""
    said = shell("schema", key=None)
    assert said.code == 0
    schema = said.json
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    shipped = sorted((REPOSITORY / "jobs").glob("*.yaml"))
    assert len(shipped) >= 2
    for path in shipped:
        content = yaml.load(path.read_text("utf-8"), Loader=Yaml12)
        validator(schema).validate(content)
        assert shell("plan", path, key=None).code == 0
    wrong = {"version": 1, "jobs": [{"id": "a", "prompt": "x", "aspect_ratoi": "16:9"}]}
    assert list(validator(schema).iter_errors(wrong))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(shell: Any, command: str) -> None:
    """`--help` exits with 0 and says something; the main help lists the command."""
    said = shell(command, "--help", key=None)
    assert said.code == 0
    assert len(said.out) > 60
    assert f"  {command} " in shell("--help", key=None).out


def test_run_has_every_option_of_contract(shell: Any) -> None:
    """With a help text."""
    said = shell("run", "--help", key=None)
    missing = [option for option in RUN_OPTIONS if not re.search(rf"{option}\b", said.out)]
    assert missing == []


def test_help_names_every_exit_code(shell: Any) -> None:
    """A script's author looks there."""
    said = shell("--help", key=None)
    for code in (0, 1, 2, 3, 4, 70, 75, 130, 143):
        assert re.search(rf"\b{code}\b", said.out)


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (("rnu", "x.yaml"), "run"),
        (("statsu",), "status"),
        (("run", "night.yaml", "--sandbx"), "--sandbox"),
        (("run", "night.yaml", "--retry-faild"), "--retry-failed"),
        (("plan", "night.yaml", "--selct", "x"), "--select"),
    ],
)
def test_mistyped_word_gets_hint(shell: Any, args: tuple[str, ...], meant: str) -> None:
    """The message suggests the right word."""
    shell.manifest()
    said = shell(*args)
    assert said.code == 2
    assert re.search(rf"[Dd]id you mean.*{meant}", said.err)


GARBAGE = {
    "a mistyped key": (b"version: 1\njobs:\n  - {id: a, promt: x}\n", 3, "prompt"),
    "no jobs": (b"version: 1\n", 1, "jobs"),
    "an unknown version": (b"version: 7\njobs: [{id: a, prompt: x}]\n", 1, "version"),
    "a tab": (b"version: 1\njobs:\n\t- {id: a}\n", 3, ""),
    "an unclosed bracket": (b"version: 1\njobs: [{id: a, prompt: x}\n", 3, ""),
    "not UTF-8": (b"version: 1\njobs: [{id: a, prompt: \xff\xfe}]\n", 2, ""),
    "a duplicate key": (b"version: 1\njobs:\n  - id: a\n    id: b\n    prompt: x\n", 4, "id"),
    "a duplicate id": (
        b"version: 1\njobs:\n  - {id: a, prompt: x}\n  - {id: A, prompt: y}\n",
        4,
        "",
    ),
    "an id that leaves": (b"version: 1\njobs:\n  - {id: ../a, prompt: x}\n", 3, ""),
    "a bad ratio": (b"version: 1\njobs:\n  - {id: a, prompt: x, aspect_ratio: 5:4}\n", 3, "16:9"),
    "a list": (b"- 1\n- 2\n", 1, ""),
    "nothing": (b"", 1, ""),
    "a binary": (bytes(range(256)) * 9, 2, ""),
    "deep nesting": (b"version: 1\njobs: " + b"[" * 100_000, 2, ""),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_unusable_manifest_is_reported_with_place(shell: Any, name: str) -> None:
    """Exit code 2 and file:line:column, and nothing is written."""
    content, line, word = GARBAGE[name]
    (shell.folder / "bad.yaml").write_bytes(content)
    before = shell.files()
    said = shell("run", "bad.yaml", "--sandbox")
    assert said.code == 2
    assert said.out == ""
    assert re.search(rf"bad\.yaml:{line}:\d+: ", said.err)
    assert word in said.err
    assert shell.files() == before


def test_all_faults_are_reported_together(shell: Any) -> None:
    """Three errors, three lines."""
    jobs = [{"id": "a"}, {"id": "b", "prompt": "x", "duration": 7}, {"id": "b", "prompt": "y"}]
    said = shell("plan", shell.manifest(jobs))
    assert said.code == 2
    assert len(re.findall(r"night\.yaml:\d+:\d+: ", said.err)) >= 3


def test_flag_beats_environment_beats_manifest(shell: Any) -> None:
    """Seen in where the output would go."""

    def target(*args: str, **env: str) -> str:
        return shell("plan", manifest, "--json", *args, **env).json["output_dir"]

    manifest = shell.manifest(1)
    assert target() == "outputs/night"
    manifest = shell.manifest(1, output_dir="by-manifest")
    assert target().endswith("by-manifest")
    assert target(KLING_BATCH_OUTPUT_DIR="by-env") == "by-env"
    assert target("--output-dir", "by-flag", KLING_BATCH_OUTPUT_DIR="by-env") == "by-flag"


def test_select_variable_is_split_at_newlines(shell: Any) -> None:
    """A blank belongs to an id; the flag and its variable choose the same."""
    manifest = shell.manifest([{"id": id_, "prompt": id_} for id_ in ("city night", "night", "a")])

    def chosen(*args: str, **env: str) -> list[str]:
        jobs = shell("plan", manifest, "--json", *args, **env).json["jobs"]
        return [job["job_id"] for job in jobs]

    assert chosen(KLING_BATCH_SELECT="city night") == ["city night"]
    assert chosen("--select", "city night") == ["city night"]
    assert chosen(KLING_BATCH_SELECT="city night\na\n") == ["city night", "a"]


@pytest.mark.parametrize("name", ["FORCE", "RETRY_FAILED", "RESUBMIT_UNCONFIRMED", "DRY_RUN"])
def test_unknown_variable_is_warned_of(shell: Any, name: str) -> None:
    """No variable stands for a flag whose forgetting would cost money."""
    said = shell("plan", shell.manifest(1), **{f"KLING_BATCH_{name}": "1"})
    assert f"KLING_BATCH_{name} is unknown and has no effect" in said.err


def test_limits_follow_the_same_order(shell: Any, sandbox: Any) -> None:
    """Seen at the provider."""
    for expected, env, args in (
        (2, {}, ()),
        (1, {"KLING_BATCH_MAX_IN_FLIGHT": "1"}, ()),
        (3, {"KLING_BATCH_MAX_IN_FLIGHT": "1"}, ("--max-in-flight", "3")),
    ):
        box = sandbox(median_s=0.3)
        manifest = shell.manifest(3, limits={"max_in_flight": 2})
        out = f"out-{expected}"
        said = shell("run", manifest, "--base-url", box.base_url, "--output-dir", out, *args, **env)
        assert said.code == 0
        assert box.stats.most_in_flight == expected


def test_key_comes_from_env_file(shell: Any, sandbox: Any) -> None:
    """The environment's goes first; the file's is not printed either."""
    box = sandbox(api_key="sk-from-the-file-123456")
    (shell.folder / "secrets.env").write_text(
        "# mine\nOTHER=1\nexport COMETAPI_KEY='sk-from-the-file-123456'\n", "utf-8"
    )
    args = ("run", shell.manifest(1), "--base-url", box.base_url, "--env-file", "secrets.env")
    assert shell(*args).code == 4, "the environment's key goes first, and is wrong"
    said = shell(*args, "--verbose", key=None)
    assert said.code == 0
    assert "sk-from" not in said.out + said.err
    written = {name: data for name, data in shell.files().items() if name != "secrets.env"}
    assert not any(b"sk-from" in data for data in written.values())


def test_no_secret_is_printed_or_written(shell: Any, sandbox: Any) -> None:
    """Neither the key nor a signature, in text and JSON logs, at the highest level."""
    box = sandbox("download:403:per_task=1", "submit:drop-after:until=1")
    for log_format in ("text", "json"):
        said = shell(
            *("run", shell.manifest(2), "--base-url", box.base_url, "--verbose"),
            *("--log-format", log_format, "--output-dir", log_format),
        )
        assert said.code == 0
        assert not re.search("verysecret|ksSecret|cacheKey", said.out + said.err)
    for name, data in shell.files().items():
        assert not re.search(rb"verysecret|ksSecret|cacheKey", data), name


def test_json_log_has_one_object_per_line(shell: Any, sandbox: Any) -> None:
    """Each with a time, a level and an action."""
    args = ("run", shell.manifest(), "--base-url", sandbox().base_url, "--log-format", "json")
    said = shell(*args)
    entries = [json.loads(line) for line in said.err.splitlines()]
    assert {"RunStarted", "Submitted", "JobEnded"} <= {entry["action"] for entry in entries}
    assert all({"time", "level", "message"} <= entry.keys() for entry in entries)


def test_verbose_logs_more(shell: Any, sandbox: Any) -> None:
    """Every poll, for example."""
    url = sandbox().base_url
    usual = shell("run", shell.manifest(), "--base-url", url, "--output-dir", "a")
    verbose = shell("run", shell.manifest(), "--base-url", url, "--output-dir", "b", "--verbose")
    assert len(verbose.err.splitlines()) > len(usual.err.splitlines())


def test_python_m_batch_is_same_command(shell: Any) -> None:
    """Same version, same help, same exit codes; and the forks of these tests are that command, too."""
    for args in (("--version",), ("--help",), ("run", "--help"), ("run", "missing.yaml")):
        one, other, forked = shell(*args, is_fresh=True), shell(*args, as_module=True), shell(*args)
        assert (one.code, one.out, one.err) == (other.code, other.out, other.err)
        assert (one.code, one.out, one.err) == (forked.code, forked.out, forked.err)
    assert re.search(r"kling-batch.*\d+\.\d+", shell("--version").out)


def test_embedded_sandbox_needs_no_key_or_network(shell: Any) -> None:
    """The README's first run, with one job."""
    manifest = shell.manifest([{"id": "a", "prompt": "a fox", "model": "kling-v2-5-turbo"}])
    said = shell("run", manifest, "--sandbox", key=None)
    assert said.code == 0
    assert (shell.folder / "outputs/night.sandbox/videos/a.mp4").stat().st_size > 1000
    assert "1 task created in the sandbox, nothing was paid" in said.out
    assert "nothing was paid" in shell("status", key=None).out


def test_sandbox_and_real_library_lie_apart(shell: Any, sandbox: Any) -> None:
    """Each is planned and made beside the other; only the real one is paid for."""
    box = sandbox()
    manifest = shell.manifest(1, base_url=box.base_url)
    planned = [shell("plan", manifest, *more, "--json").json for more in ((), ("--sandbox",))]
    assert [plan["output_dir"] for plan in planned] == ["outputs/night", "outputs/night.sandbox"]

    assert [shell("run", manifest, *more).code for more in (("--sandbox",), ())] == [0, 0]
    assert box.stats.created == 1
    for more in ((), ("--sandbox",)):
        assert shell("plan", manifest, *more, "--json").json["counts"]["unchanged"] == 1
        assert shell("run", manifest, *more).code == 0


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("loops/a", "loops/a.sandbox"),
        ("loops/a/", "loops/a.sandbox"),
        (".", "sandbox"),
        ("..", "../sandbox"),
    ],
)
def test_sandbox_lies_beside_output_dir_of_manifest(shell: Any, written: str, folder: str) -> None:
    shell.manifest(1, output_dir=written)
    said = shell("plan", "night.yaml", "--sandbox", "--json")
    root = shell.folder / said.json["output_dir"]
    assert root.resolve() == (shell.folder / folder).resolve()


def test_real_run_refuses_folder_of_sandbox(shell: Any) -> None:
    """Its videos must not pass for real ones, wherever they lie."""
    manifest, here = shell.manifest(1), ("--output-dir", "loops")
    assert shell("run", manifest, "--sandbox", *here, key=None).code == 0
    said = shell("run", manifest, *here)
    assert (said.code, "holds videos of the sandbox" in said.err) == (2, True)


def test_closed_stdout_is_no_crash(shell: Any) -> None:
    """`kling-batch schema | head -1`."""
    with subprocess.Popen(
        [*shell.command, "schema"],
        cwd=shell.folder,
        env=shell.env(None, {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
        process.wait()
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert process.returncode != 70


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_terminal_with_few_characters_is_no_crash(shell: Any, sandbox: Any, encoding: str) -> None:
    """Other scripts in ids, arrows of ours: replaced, not exit code 70 after the money is spent."""
    jobs = [{"id": "käfer-狐", "prompt": "sandbox:moderation 狐"}]
    manifest = shell.manifest(jobs)
    assert shell("plan", manifest, PYTHONIOENCODING=encoding).code == 0
    args = ("run", manifest, "--base-url", sandbox().base_url)
    assert shell(*args, PYTHONIOENCODING=encoding).code == 1
    assert shell("status", "outputs/night", PYTHONIOENCODING=encoding).code == 0


def test_sandbox_serves_until_interrupted(shell: Any) -> None:
    """It prints its address, serves any client, and Ctrl-C ends it silently."""
    with shell.running("sandbox", "--port", "0") as process:
        line = process.stdout.readline().decode()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        assert shell("run", shell.manifest(1), "--base-url", url, "--deadline", "300ms").code == 3
        process.send_signal(2)
        _out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in {0, 130}
    assert b"Traceback" not in err


def test_sandbox_is_steered_and_logs(shell: Any) -> None:
    """For a client in any language: end every task now, and read what came; never the key."""
    with shell.running("sandbox", "--port", "0", "--log", "--median", "3600") as process:
        url = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline().decode())[0]
        with shell.running("run", shell.manifest(1), "--base-url", url) as run:
            shell.until(lambda: get(f"{url}/sandbox/stats")["created"] == 1)
            request = urllib.request.Request(f"{url}/sandbox/finish", method="POST")
            assert len(get(request)["finished"]) == 1
            assert run.wait(timeout=PATIENCE_S) == 0
        process.send_signal(2)
        _out, err = process.communicate(timeout=PATIENCE_S)
    log = err.decode()
    assert re.search(r"T[\d:.+]+ POST /kling/v1/videos/text2video 200 kb-\S+\n", log)
    assert re.search(r" GET /bs2/\S+\.mp4 200 kb-\S+\n", log)
    assert not re.search("verysecret|ksSecret|fox", log)


def get(what: str | urllib.request.Request) -> Any:
    """Ask a page of the sandbox."""
    with urllib.request.urlopen(what, timeout=PATIENCE_S) as answer:
        return json.load(answer)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_progress_never_logs_lines(shell: Any, sandbox: Any) -> None:
    """Without a terminal there are lines; `--progress never` is the same."""
    url = sandbox().base_url
    said = shell("run", shell.manifest(), "--base-url", url, "--progress", "never")
    assert said.code == 0
    assert "job-0" in said.err
