"""Flags and variables: what they choose, and how a wrong one is told, to people and to programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOWHERE = {"file": None, "line": None, "column": None, "job": None}


def planned(shell: Any, *args: Any, **env: str) -> list[str]:
    """Return the jobs that a plan lists."""
    return [job["job_id"] for job in shell("plan", *args, "--json", **env).json["jobs"]]


def listed(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id_, "prompt": f"A {id_}", "tags": [id_[0]]} for id_ in ids]


# -- which jobs


def test_select_and_exclude_choose_jobs(shell: Any) -> None:
    """A variable and its flag choose the same."""
    manifest = shell.manifest(listed("city night", "night", "city"))

    for select in ({"KLING_BATCH_SELECT": "city night\r\n"}, {"KLING_BATCH_SELECT": "city night"}):
        assert planned(shell, manifest, **select) == ["city night"]
    assert planned(shell, manifest, "--select", "city night") == ["city night"]
    assert planned(shell, manifest, "--exclude", "city night") == ["night", "city"]
    assert planned(shell, manifest, KLING_BATCH_EXCLUDE="tag:n\ncity") == ["city night"]
    assert planned(shell, manifest, "--select", "tag:c", "--exclude", "* *") == ["city"]


def test_state_selects_what_failed(shell: Any, sandbox: Any) -> None:
    """Where nothing has failed, there is nothing to do: exit 0."""
    box = sandbox()
    jobs = [{"id": "good", "prompt": "fox"}, {"id": "bad", "prompt": "sandbox:moderation"}]
    args = (shell.manifest(jobs), "--base-url", box.base_url)
    failed = ("--select", "state:failed")

    assert planned(shell, *args, *failed) == []
    assert shell("run", *args, *failed, "--quiet").code == 0
    assert box.stats.posts == 0
    assert shell("run", *args).code == 1
    assert planned(shell, *args, *failed) == ["bad"]
    assert planned(shell, *args, "--exclude", "state:failed") == []
    posts = box.stats.posts
    assert shell("run", *args, *failed, "--retry-failed").code == 1
    assert box.stats.posts == posts + 1


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        (
            ("--select", "nigth"),
            {},
            "the pattern 'nigth' selects no job of the manifest; did you me",
        ),
        (("--exclude", "nigth"), {}, "the pattern 'nigth' excludes no job of the manifest"),
        ((), {"KLING_BATCH_SELECT": "night\nx-*"}, "the pattern 'x-*' selects no job"),
        ((), {"KLING_BATCH_SELECT": ""}, "KLING_BATCH_SELECT is empty and matches no job"),
        (("--select", ""), {}, "an empty pattern matches no job"),
        (("--select", "state:faild"), {}, "'state:faild' is not a valid pattern"),
        (("--select", "night", "--exclude", "n*"), {}, "every job that is selected is excluded"),
    ],
)
def test_2_when_pattern_matches_nothing(
    shell: Any, sandbox: Any, command: str, args: Any, env: Any, told: str
) -> None:
    """Also for cron: a typing error must be seen."""
    box = sandbox()
    manifest = shell.manifest(listed("night", "city"))
    before = shell.files()
    said = shell(command, manifest, "--base-url", box.base_url, "--quiet", *args, **env)

    assert said.code == 2
    assert told in said.err
    assert (shell.files(), box.stats.posts) == (before, 0)


def test_2_when_pattern_matches_only_orphans(shell: Any) -> None:
    assert shell("run", shell.manifest(listed("night", "city")), "--sandbox").code == 0
    said = shell("run", shell.manifest(listed("city")), "--sandbox", "--select", "night")

    assert said.code == 2
    assert "selects no job of the manifest, only what has left it: 'night'" in said.err


def test_excluded_tag_without_jobs_is_warned_of(shell: Any) -> None:
    said = shell("plan", shell.manifest(listed("night")), "--exclude", "tag:draft")

    assert said.code == 0
    assert "warning: the pattern 'tag:draft' excludes no job of the manifest" in said.err


# -- where to, and with which key


@pytest.mark.parametrize("folder", ["~/loops", "$HOME/loops", "${HOME}/loops"])
def test_home_in_output_dir_is_expanded(shell: Any, folder: str) -> None:
    home = str(shell.folder / "home")
    manifest = shell.manifest(1)
    for args, env in ((("--output-dir", folder), {}), ((), {"KLING_BATCH_OUTPUT_DIR": folder})):
        said = shell("plan", manifest, "--json", *args, HOME=home, **env)
        assert said.json["output_dir"] == f"{home}/loops"


@pytest.mark.parametrize("folder", ["loops\r", "$NOT_SET/loops", ""])
def test_2_when_output_dir_names_no_folder(shell: Any, folder: str) -> None:
    said = shell("run", shell.manifest(1), "--sandbox", "--output-dir", folder)

    assert said.code == 2
    assert "--output-dir" in said.err
    assert [path.name for path in shell.folder.iterdir()] == ["night.yaml"]


def test_2_when_docker_kept_the_quotes_of_a_variable(shell: Any) -> None:
    """Never a folder whose name has quotes."""
    said = shell("run", shell.manifest(1), "--sandbox", KLING_BATCH_OUTPUT_DIR='"loops"')

    assert said.code == 2
    assert '"loops" holds its quotes (docker keeps them); leave them out' in said.err
    assert [path.name for path in shell.folder.iterdir()] == ["night.yaml"]


@pytest.mark.parametrize(
    ("data", "env"),
    [
        (b'COMETAPI_KEY="sk-file-0"   # production\n', {}),
        (b"export\tCOMETAPI_KEY=sk-file-0\n", {}),
        ("COMETAPI_KEY=sk-file-0\r\n".encode("utf-16"), {}),
        (b"COMETAPI_KEY=${STUDIO}\n", {"STUDIO": "sk-file-0"}),
        (b"OTHER=1\n", {"COMETAPI_KEY": '"sk-file-0"'}),
    ],
)
def test_env_file_of_other_tools_is_read(
    shell: Any, sandbox: Any, data: bytes, env: dict[str, str]
) -> None:
    (shell.folder / "key.env").write_bytes(data)
    box = sandbox(api_key="sk-file-0")
    args = ("run", shell.manifest(1), "--base-url", box.base_url, "--env-file", "key.env")

    assert shell(*args, key=None, **env).code == 0
    assert box.stats.created == 1


@pytest.mark.parametrize("more", [(), ("--sandbox",)])
def test_2_when_env_file_is_not_there(shell: Any, more: tuple[str, ...]) -> None:
    """Although the key is known, or none is needed."""
    said = shell("run", shell.manifest(1), "--env-file", "missing.env", *more)

    assert said.code == 2
    assert "the env file missing.env cannot be read: No such file or directory" in said.err


# -- contradictions and typing errors


def test_2_when_sandbox_has_a_base_url(shell: Any) -> None:
    """A flag beats a variable, but not the other way round: that run might cost money."""
    both = ("--sandbox", "--base-url", "https://api.example")
    manifest = shell.manifest(1)

    assert shell("run", manifest, *both).code == 2
    assert shell("run", manifest, *both[1:], KLING_BATCH_SANDBOX="1").code == 2
    said = shell("run", manifest, "--sandbox", KLING_BATCH_BASE_URL="https://api.example")
    assert said.code == 0


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("run", "night.yaml", "--flight", "3"), "Did you mean --max-in-flight?"),
        (("run", "night.yaml", "--rate", "3"), "Did you mean --submit-rate?"),
        (("plan", "night.yaml", "--url", "x"), "Did you mean --base-url or --callback-url?"),
        (("plan", "night.yaml", "--selct", "x"), "Did you mean --select?"),
        (("stat",), "Did you mean 'status'?"),
        (("plam", "night.yaml"), "Did you mean 'plan'?"),
    ],
)
def test_mistyped_name_is_recognised(shell: Any, args: tuple[str, ...], hint: str) -> None:
    said = shell(*args)

    assert said.code == 2
    assert hint in said.err


@pytest.mark.parametrize(
    "option",
    [
        *("--budget", "--max-in-flight", "--deadline", "--select", "--exclude", "--base-url"),
        *("--output-dir", "--env-file", "--submit-rate", "--proxy", "--callback-url"),
    ],
)
def test_2_when_value_is_left_out(shell: Any, option: str) -> None:
    """An empty variable of a script must not mean a run without a budget."""
    for args in ((), ("--quiet",)):
        said = shell("run", shell.manifest(1), "--sandbox", option, *args)
        assert said.code == 2
    assert not (shell.folder / "outputs").exists()


@pytest.mark.parametrize(
    "args",
    [
        *("--port 99999", "--cdn-port -1", "--speed nan", "--median inf", "--sigma -1"),
        *("--invisible nan", "--max-parallel -1", "--video-bytes -1"),
    ],
)
def test_2_when_sandbox_option_is_invalid(shell: Any, args: str) -> None:
    said = shell("sandbox", "--port", "0", *args.split())

    assert said.code == 2
    assert "must be a number" in said.err or "is not in the range" in said.err


def test_sandbox_help_lists_options_first(shell: Any) -> None:
    help_text = shell("sandbox", "--help").out
    assert 0 < help_text.index("--port") < help_text.index("Faults, as STAGE")


# -- for programs


@pytest.mark.parametrize("command", ["run", "plan"])
def test_json_has_every_fault_of_a_manifest(shell: Any, command: str) -> None:
    (shell.folder / "bad.yaml").write_text(
        "version: 1\njobs:\n  - {id: a}\n  - {id: b, prompt: x, duratoin: 5}\n", "utf-8"
    )
    said = shell(command, "bad.yaml", "--sandbox", "--json")

    assert (said.code, said.json["exit_code"]) == (2, 2)
    first, second = said.json["problems"]
    assert (first["file"], first["line"], first["job"]) == ("bad.yaml", 3, "a")
    assert (second["line"], second["column"], second["job"]) == (4, 24, "b")
    assert "did you mean duration?" in second["message"]
    assert said.err.count("bad.yaml:") == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("run", "night.yaml", "--base-url", "ftp://x"), "Invalid value for '--base-url'"),
        (("run", "night.yaml", "--callback-url", "https://x.example"), "callbacks need both"),
        (("plan", "night.yaml", "--select", "x"), "the pattern 'x' selects no job"),
        (("plan", "night.yaml", "--flight", "3"), "No such option '--flight'. Did you mean"),
        (("run", "night.yaml", "--budget", "-3"), "Invalid value for '--budget'"),
        (("run",), "Missing argument 'MANIFEST'"),
        (("status", "nowhere"), "nowhere is not an output folder"),
        (("statu",), "No such command 'statu'"),
    ],
)
def test_json_has_what_is_wrong(shell: Any, args: tuple[str, ...], message: str) -> None:
    """The usage errors of the command line have no place."""
    shell.manifest(1)
    said = shell(*args, "--json")

    assert (said.code, said.json["exit_code"]) == (2, 2)
    (problem,) = said.json["problems"]
    assert problem["message"].startswith(message)
    assert problem == {**NOWHERE, "message": problem["message"]}
    assert said.err


def test_invalid_value_hides_no_fault_of_the_manifest(shell: Any) -> None:
    """An option is refused before the file is read; both are told at once, wherever they stand."""
    manifest = shell.manifest([{"id": "a", "promt": "x", "mode": "prp"}])
    for args in (("--submit-rate", "60/x", manifest), (manifest, "--submit-rate", "60/x")):
        said = shell("plan", *args, "--json")
        messages = [problem["message"] for problem in said.json["problems"]]
        assert said.code == 2
        assert [len(messages), "'60/x' is not a valid rate" in messages[0]] == [3, True]
        assert "unknown key 'promt'" in said.err
    assert len(shell("plan", shell.manifest(1), "--budget", "x", "--json").json["problems"]) == 1


def test_json_has_the_place_in_an_env_file(shell: Any) -> None:
    Path(shell.folder, "key.env").write_text("# mine\nCOMETAPI_KEY='sk-verysecret\n", "utf-8")
    said = shell("run", shell.manifest(1), "--env-file", "key.env", "--json", key=None)

    (problem,) = said.json["problems"]
    assert (said.code, problem["file"], problem["line"]) == (2, "key.env", 2)
    assert "verysecret" not in said.out + said.err


def test_json_without_a_result_has_its_exit_code(shell: Any, sandbox: Any) -> None:
    """A folder that is held is 75; results whose state is gone are 2: nothing was sent."""
    box = sandbox(median_s=60)
    args = ("run", shell.manifest(1), "--base-url", box.base_url, "--json")
    with shell.running(*args) as process:
        while box.stats.created == 0:
            pass
        said = shell(*args)
    assert (said.code, said.json["exit_code"]) == (75, 75)
    assert str(process.pid) in said.json["problems"][0]["message"]

    (shell.folder / "lost").mkdir()
    (shell.folder / "lost/results.jsonl").write_text(json.dumps({"job_id": "a"}) + "\n", "utf-8")
    for command in ("run", "plan"):
        said = shell(command, *args[1:], "--output-dir", "lost")
        assert (said.code, said.json["exit_code"]) == (2, 2)
        assert "results.jsonl holds rows of earlier runs" in said.json["problems"][0]["message"]
    assert box.stats.posts == 1


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("night.yaml", "it is a file (name the folder that holds videos/"),
        ("nowhere", "there is no such folder (the working directory is "),
        ("outputs", "it has no .kling-batch/state.db (did you mean outputs/night?)"),
    ],
)
def test_what_is_no_output_folder_is_told_apart(
    shell: Any, sandbox: Any, named: str, message: str
) -> None:
    """A manifest, a path from another working directory, and the folder above."""
    shell("run", shell.manifest(1), "--base-url", sandbox().base_url)
    for command in ("status", "ledger", "report"):
        said = shell(command, named, key=None)
        assert (said.code, f"{named} is not an output folder: {message}" in said.err) == (2, True)
