"""Every command and example of the README and of the pages is run, or at least parsed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from cluster import binaries, ordinary_folder
from patience import PATIENCE_S
from ports import free_port
from warm import WarmCommand

from batch.cli.main import app
from batch.errors import ExitCode
from batch.job import FailureKind
from batch.manifest.limits import LIMIT_KEYS
from batch.manifest.schema import CALLBACK_KEYS, JOB_KEYS, NOTIFY_KEYS, OUTPUT_KEYS, ROOT_KEYS
from batch.rows import Row

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
PAGES = sorted((REPOSITORY / "batch/cli/pages").glob("*.md"))
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIBRARY = "/srv/loops"  # the folder of the examples
NOT_RUN = {"", "text", "mermaid"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, what stands behind that, and its text."""

    page: str
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.language}-{self.mark or self.text[:20].strip()}"


def blocks_of(path: Path) -> list[Block]:
    return [Block(path.stem, *found) for found in FENCE.findall(path.read_text("utf-8"))]


BLOCKS = [block for path in (README, *PAGES) for block in blocks_of(path)]


def each(*languages: str, mark: Callable[[str], bool] = lambda _: True) -> Any:
    """Have a test run for each block of these languages."""
    found = [block for block in BLOCKS if block.language in languages and mark(block.mark)]
    assert found
    return pytest.mark.parametrize("block", found, ids=str)


class Desk:
    """The library of the examples, with a provider and a key."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder = folder
        self.home = {"HOME": str(folder)}  # without one, the person's is found
        bin_folder = Path(sys.executable).parent
        self.env = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            **self.home,
            "TMPDIR": str(folder),
            "STUDIO_HOOK": "http://127.0.0.1:9/hook",
            "HC_URL": "http://127.0.0.1:9/ping",
        }
        (nature,) = (b.text for b in BLOCKS if (b.page, b.mark) == ("README", "nature.yaml"))
        quick = nature.replace("60/min", "100/s\n  poll_interval: 100ms")
        (folder / "nature.yaml").write_text(f"{quick}base_url: {base_url}\n", "utf-8")
        (folder / ".env").write_text("COMETAPI_KEY=sk-verysecretkey0123456789\n", "utf-8")
        for block in BLOCKS:
            if block.language == "csv":
                (folder / block.mark).write_text(block.text, "utf-8")
        (folder / ".venv").symlink_to(sys.prefix)

    def run(self, *command: str, env: dict[str, str] | None = None) -> str:
        """Run a command to a good end, and return what it printed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env if env is None else env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr.lower(), done.stderr
        return done.stdout

    def localized(self, text: str) -> str:
        """Return *text* with the folder of the examples in place of their own."""
        return text.replace(LIBRARY, str(self.folder))


@pytest.fixture
def desk(tmp_path: Path, sandbox: Callable[..., Any]) -> Desk:
    folder = tmp_path / "loops"
    folder.mkdir()
    return Desk(folder, sandbox().base_url)


@pytest.fixture
def library(desk: Desk, warm: WarmCommand) -> Desk:
    """Give the desk after its first night."""
    run, ledger = (
        warm.run(command.split(), cwd=desk.folder, env=desk.env, timeout_s=PATIENCE_S)
        for command in (
            "run nature.yaml --env-file .env --new",
            "ledger outputs/nature-loops --csv",
        )
    )
    assert (run[0], ledger[0]) == (0, 0)
    (desk.folder / "ledger.csv").write_bytes(ledger[1])
    return desk


def test_every_block_is_of_a_language_that_is_tried() -> None:
    tried = {"sh", "yaml", "csv", "crontab", "ini", "nginx", "python", "sql"}
    assert {block.language for block in BLOCKS} <= tried | NOT_RUN


# -- the README's blocks ---------------------------------------------------------------------------


def shell_blocks() -> list[str]:
    return [block.text for block in blocks_of(README) if (block.language, block.mark) == ("sh", "")]


def test_first_block_of_readme_makes_the_demo(tmp_path: Path) -> None:
    """Videos and results lie under outputs/."""
    *setup, run = shell_blocks()[0].splitlines()
    assert [line.split(" install ")[0] for line in setup] == [
        "python3 -m venv .venv",
        ".venv/bin/pip",
    ]
    shutil.copytree(REPOSITORY / "jobs", tmp_path / "jobs")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for _ in range(2):
        subprocess.run(["sh", "-euc", run], cwd=tmp_path, check=True, capture_output=True)
    (results,) = tmp_path.glob("outputs/*/results.jsonl")
    assert len(list(results.parent.glob("videos/**/*.mp4"))) == 7
    assert len(results.read_text("utf-8").splitlines()) == 7, "nothing was made twice"
    assert str(results.relative_to(tmp_path)) in README.read_text("utf-8")


def test_second_block_of_readme_is_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci/run").read_text("utf-8")
    (extract,) = re.findall(r"^commands=\$\((.*)\)$", script, re.MULTILINE)
    found = subprocess.run(
        ["bash", "-c", extract], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert found.stdout == shell_blocks()[1]
    assert len(shell_blocks()) == 2, "blocks for readers have a word behind their sh"


@each("sh", mark=lambda mark: mark in {"newcomer", "real"})
def test_commands_of_readme_run(desk: Desk, block: Block) -> None:
    desk.run("bash", "-euo", "pipefail", "-c", block.text)


# -- the pages' blocks -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_of_page_run(library: Desk, page: Path) -> None:
    """In their order, in the library of the examples."""
    blocks = [block for block in blocks_of(page) if (block.language, block.mark) == ("sh", "")]
    for block in blocks:
        if re.search(r"\bjq\b", block.text) and not shutil.which("jq"):
            continue
        library.run("bash", "-euo", "pipefail", "-c", block.text)


def test_fleet_of_page_is_tried_by_an_ordinary_user(desk: Desk) -> None:
    """Postgres in a folder, a sandbox, two workers and a run; then back to one machine."""
    if binaries() is None:
        pytest.skip("no Postgres is installed (Debian: apt-get install postgresql)")
    text = page("fleet")
    for port in ("54329", "18088"):  # others may try the page on this machine, too
        text = text.replace(port, str(free_port()))
    blocks = {mark: block for _, mark, block in FENCE.findall(text)}
    with ordinary_folder() as (folder, user):

        def call(text: str, **more: Any) -> subprocess.CompletedProcess[str]:
            command = ["bash", "-euo", "pipefail", "-c", text]
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True}
            return subprocess.run(
                command, env=desk.env, timeout=PATIENCE_S, text=True, check=False, **streams, **more
            )

        path, *make = blocks["cluster"].splitlines(keepends=True)
        assert call("".join([path, *make]), cwd=folder, **user).returncode == 0
        try:
            # What runs beside it must not outlive a command that fails.
            ending = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
            done = call(ending + blocks["try"] + blocks["back"], cwd=desk.folder)
        finally:
            call(path + blocks["away"], cwd=folder, **user)
    assert done.returncode == 0, done.stdout + done.stderr
    told = ["5 made", "5 unchanged", "is in outputs/fleet/.kling-batch/state.db now"]
    assert [words for words in told if words not in done.stdout] == [], done.stdout + done.stderr


@each("sh")
def test_commands_parse(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for line in block.text.splitlines():
        for args in commands_in(line):
            parse(args)


def commands_in(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each kling-batch command in a line of a shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    args: list[str] | None = None
    for word in words:
        if re.fullmatch(r"(.*/)?kling-batch", word):
            args = []
        elif re.fullmatch(r"[|&;<>()]+", word):
            if args:
                yield args
            args = None
        elif args is not None:
            args.append(word)
    if args:
        yield args


def parse(args: list[str]) -> None:
    """Fail if there is no such command, argument or option."""
    with app.make_context("kling-batch", list(args)) as context:
        name, command, rest = app.resolve_command(context, args)
        assert command is not None
        with command.make_context(name, rest, parent=context):
            pass


def test_a_wrong_command_would_be_noticed() -> None:
    ((args),) = commands_in("sleep 1; X=1 .venv/bin/kling-batch run a.yaml --budgte 5 | jq .")
    with pytest.raises(click.UsageError):
        parse(args)


@each("yaml", mark=lambda mark: not mark.startswith(".github"))
def test_manifests_plan_without_a_warning(desk: Desk, warm: WarmCommand, block: Block) -> None:
    text = block.text
    if "jobs:" not in text:
        text += "jobs: [{id: a, prompt: a fox}]\n"
    if "version:" not in text:
        text = f"version: 1\n{text}"
    (desk.folder / "example.yaml").write_text(text, "utf-8")
    secrets = dict.fromkeys(re.findall(r"env:(\w+)", text), "https://hooks.example/secret")
    env = {**desk.env, **secrets}
    args = ("plan", "example.yaml")
    code, out, err = warm.run(args, cwd=desk.folder, env=env, timeout_s=PATIENCE_S)
    assert (code, b"new" in out, b"warning" in err.lower()) == (0, True, False), out + err


@each("python")
def test_python_runs(library: Desk, block: Block) -> None:
    compile(block.text, str(block), "exec")
    if "import pandas" in block.text:
        pytest.importorskip("pandas")
    library.run(sys.executable, "-c", block.text)


@each("sql")
def test_queries_run(library: Desk, block: Block) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = block.text.replace("outputs/", f"{library.folder}/outputs/")
    rows = duckdb.sql(query).fetchall()
    assert len(rows) == 5


@each("crontab")
def test_crontab_lines_run_as_cron_runs_them(library: Desk, block: Block) -> None:
    """In next to no environment, and in silence: nothing is wrong."""
    *when, command = block.text.strip().split(maxsplit=5)
    assert all(re.fullmatch(r"[0-9*,/-]+", field) for field in when)
    assert "%" not in command, "cron takes it for a line end"
    bare = library.home | {"LOGNAME": "nobody", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    assert library.run("/bin/sh", "-c", library.localized(command), env=bare) == ""


@each("ini", mark=lambda mark: mark == "kling-batch.service")
def test_units_are_valid_and_run(library: Desk, block: Block) -> None:
    """The service's command runs in its folder, in next to no environment."""
    units = [item for item in BLOCKS if item.language == "ini"]
    for unit in units:
        (library.folder / unit.mark).write_text(library.localized(unit.text), "utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", library.localized(block.text), re.MULTILINE)
    library.run(*shlex.split(command), env=library.home | {"PATH": "/usr/bin:/bin"})
    if shutil.which("systemd-analyze"):
        files = [str(library.folder / unit.mark) for unit in units]
        library.run("systemd-analyze", "verify", "--man=no", *files)


@each("yaml", mark=lambda mark: mark.startswith(".github"))
def test_workflow_is_one_and_its_command_runs(library: Desk, block: Block) -> None:
    workflow = yaml.load(block.text, yaml.BaseLoader)  # where `on` is a text
    assert set(workflow) == {"name", "on", "concurrency", "permissions", "jobs"}
    (job,) = workflow["jobs"].values()
    (step,) = job["steps"]
    assert step["working-directory"] == LIBRARY
    env = library.home | {"PATH": "/usr/bin:/bin", "COMETAPI_KEY": "sk-verysecretkey0123456789"}
    library.run("bash", "-euo", "pipefail", "-c", library.localized(step["run"]), env=env)


@each("nginx")
def test_configuration_of_nginx_is_valid(tmp_path: Path, block: Block) -> None:
    assert block.text.count("{") == block.text.count("}")
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx")
    server = f"server {{ listen 127.0.0.1:8091;\n{block.text}}}"
    config = f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{server}}}\n"
    (tmp_path / "nginx.conf").write_text(config)
    command = ["nginx", "-t", "-c", str(tmp_path / "nginx.conf"), "-e", str(tmp_path / "log")]
    subprocess.run(command, check=True, capture_output=True)


# -- what the pages claim to be whole ---------------------------------------------------------------


def page(name: str) -> str:
    return (REPOSITORY / f"batch/cli/pages/{name}.md").read_text("utf-8")


def test_readme_is_a_map() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", [README, *PAGES], ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_manifest_page_names_every_key() -> None:
    text = page("manifest")
    for key in (*ROOT_KEYS, *CALLBACK_KEYS, *NOTIFY_KEYS, *OUTPUT_KEYS, *JOB_KEYS, *LIMIT_KEYS):
        assert f"`{key}`" in text, key
    for key in (*NOTIFY_KEYS, *OUTPUT_KEYS):
        assert f"\n  {key}: " in text, key


def test_results_page_names_every_field() -> None:
    text = page("results-and-state")
    for name in (*Row.__annotations__, *FailureKind):
        assert f"`{name}`" in text, name


def test_readme_names_every_exit_code() -> None:
    table = README.read_text("utf-8").split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    assert set(map(int, re.findall(r"\b\d+\b", table))) == set(map(int, ExitCode))


def test_money_rules_that_the_code_cites_exist() -> None:
    rules = set(re.findall(r"^(\d+)\. \*\*", page("money-rule"), re.MULTILINE))
    cited = {
        number
        for path in (REPOSITORY / "batch").rglob("*.py")
        for number in re.findall(r"money rule (\d+)", path.read_text("utf-8"))
    }
    assert cited
    assert cited <= rules
    assert rules == {str(number) for number in range(1, len(rules) + 1)}


PRIVATE = {
    "a key": r"sk-(?!…)[A-Za-z0-9]{8,}|Bearer [A-Za-z0-9]{8,}",
    "a signed link": r"[?&](ksSecret|cacheKey|X-Amz-\w+|Signature|Expires)=",
    "a home": r"/(home|Users|root)/\w+",
    "a temporary folder": r"/tmp/\w+|/var/folders",
    "a person": r"[\w.]+@(?!studio\.example)[\w-]+\.\w+",
    "a machine": r"\b(10|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d+){2,3}\b|\w\.local\b",
}


@pytest.mark.parametrize("what", PRIVATE)
def test_documents_name_nothing_private(what: str) -> None:
    """The README, the changelog, every page of the manual, the examples and the page's own files."""
    kinds = ("*.md", "*.yaml", "*.html", "*.css", "*.js")
    folders = (REPOSITORY / "batch", REPOSITORY / "jobs")
    files = [README, REPOSITORY / "CHANGELOG.md"]
    files += [path for folder in folders for kind in kinds for path in folder.rglob(kind)]
    assert len(files) > 12
    for path in files:
        found = re.search(PRIVATE[what], path.read_text("utf-8"))
        assert found is None, (path, found)
