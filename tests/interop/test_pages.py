"""Each command and file of `docs/worker-commands.md` and of the examples' READMEs, as it is printed, in dash.

Only the address of Redis and the port of the stand-in for a model are those of the test, and `kubectl` changes nothing.
Needs dash, jq, curl, node and kubectl: what one of them misses is skipped.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import CREWJOB, HERE, eventually, free_port
from tasks import app

PROJECT = HERE.parents[1]
EXAMPLES = PROJECT / "examples"
PACKAGE = PROJECT / "python"
CREWAI = Path(os.environ["CREWAI_PYTHON"])
# Writes what it was given: an image without an image library.
CONVERT = '#!/bin/sh\n[ "$2" = -resize ] && cat "$1" > "$4" && echo "$3" >> "$4"\n'
# Installs the package among nothing else: what is installed for the tests stays as it is.
PIP = '#!/bin/sh\ncase "$*" in wheel*|"install -r"*) ;; *) set -- "$@" --target "$SITE" ;; esac\nexec python3 -m pip "$@"\n'
# `kubectl` as far as it needs no cluster.
KUBECTL = '#!/bin/sh\nexec {} "$@" --dry-run=client -o json\n'


def needs(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on the PATH")


class Page:
    """The blocks of a page, each of which must be used by a test."""

    def __init__(self, path):
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)
        self.unused = [text for _, text in self.blocks]

    def take(self, part):
        """The block with this text, the address of Redis replaced."""
        found = [text for _, text in self.blocks if part in text]
        assert len(found) == 1, f"{len(found)} blocks have {part!r}"
        self.unused.remove(found[0])
        return found[0].replace("redis://127.0.0.1:6379/0", os.environ["REDIS_URL"])


@pytest.fixture
def environment(tmp_path, server):
    """Programs as they are found on the PATH of a reader."""
    needs("dash", "jq")
    server.flushall()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "crewjob").symlink_to(CREWJOB)
    for name, text in {"convert": CONVERT, "pip": PIP, "kubectl": KUBECTL.format(shutil.which("kubectl"))}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    site = str(tmp_path / "site")
    return os.environ | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": site, "SITE": site}


def copied(source, folder):
    """A copy of this part of the repository at its place in a folder, with the package at its own."""
    built = shutil.ignore_patterns("build", "dist", "*.egg-info", "*.whl", "__pycache__")
    for part in {source, PACKAGE}:
        shutil.copytree(part, folder / part.relative_to(PROJECT), ignore=built)
    return folder / source.relative_to(PROJECT)


def run(text, folder, environment, **options):
    """What a block prints."""
    options = {"stdout": subprocess.PIPE, "text": True, "timeout": 120} | options
    done = subprocess.run(["dash", "-eu", "-c", text], cwd=folder, env=environment, **options)
    assert done.returncode == 0, (text, done.stdout)
    return done.stdout.strip()


@contextlib.contextmanager
def serving(text, folder, environment, seconds=30):
    """A block that ends with a worker, while that is ready."""
    log = folder / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["dash", "-eu", "-c", text], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:

        def is_ready():
            assert process.poll() is None, log.read_text()
            return " ready" in log.read_text()

        eventually(is_ready, seconds, "a worker that is ready")
        yield log
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def build(dockerfile, context, root):
    """Carries out the instructions of an image that copy files, and returns its command and its folder."""
    command, folder = None, root
    for line in dockerfile.splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY" and rest.startswith("--from=crewjob/worker "):
            assert rest.split()[1:] == ["/crewjob", "/crewjob"]
            (root / "crewjob").symlink_to(CREWJOB)
        elif word == "COPY":
            *sources, target = rest.split()
            (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            for source in [found for source in sources for found in context.glob(source)]:
                shutil.copy(source, root / target.lstrip("/"))
        elif word == "WORKDIR":
            folder = root / rest.lstrip("/")
        elif word == "ENTRYPOINT":
            command = [f"{root}{part}" if part.startswith("/") else part for part in json.loads(rest)]
        else:
            assert word in {"FROM", "USER", "ENV", "RUN", "#"}, line
    return command, folder


# === docs/worker-commands.md ===


@pytest.fixture(scope="module")
def page():
    return Page(PROJECT / "docs/worker-commands.md")


@pytest.fixture
def shop(page, tmp_path):
    """The files of the page in a folder of their own."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("tasks.yaml", "thumbnail.sh", "ship.py", "price.py", "bare.py"):
        (text,) = (text for _, text in page.blocks if f"# {name}" in text)
        (folder / name).write_text(text)
        with contextlib.suppress(ValueError):
            page.unused.remove(text)
    shutil.copy(EXAMPLES / "shell-crew/crew.sh", folder)
    (folder / "thumbnail.sh").chmod(0o755)
    return folder


def test_the_first_command_of_the_page_serves_celerys_default_queue(page, environment, tmp_path):
    with serving(page.take("-Q celery --task"), tmp_path, environment):
        assert run(page.take("call shop.count"), tmp_path, environment) == "2"


def test_the_tasks_of_the_page_are_tried_and_served(page, shop, environment, tmp_path):
    needs("curl")
    environment["PYTHONPATH"] = str(PACKAGE)
    check, serve, show = page.take("--check-command shop.ship --call").splitlines()
    assert "It succeeded" in run(check, shop, environment)
    assert "--check-command" in run(show, shop, environment)
    folder = tmp_path / "thumbnails"
    folder.mkdir()
    with pictures() as url, serving(serve, shop, environment | {"FOLDER": str(folder)}):
        call = lambda *given, **options: app.send_task(*given, queue="default", **options)  # noqa: E731
        shipped = call("shop.ship", [{"item": "tea", "quantity": 2}], task_id="order-1")
        assert shipped.get(timeout=30) == {"parcel": "parcel-order-1"}
        # `ValueError` and the like are caught as such, other names are not Python's.
        refused = call("shop.ship", [{"item": "tea", "quantity": 200}]).get(timeout=30, propagate=False)
        assert (type(refused).__name__, str(refused)) == ("NoStock", "only 100 of tea")
        thumbnail = call("shop.thumbnail", [url, 64], task_id="../../no-path").get(timeout=30)
        assert Path(thumbnail["file"]).parent == folder
        assert Path(thumbnail["file"]).read_text() == "a picture64\n"
        for task in ("shop.price", "shop.bare"):
            assert call(task, kwargs={"item": "tea"}).get(timeout=30) == 3
            with pytest.raises(KeyError):
                call(task, kwargs={"item": "ink"}).get(timeout=30)
        crew = call("backend.tasks.run_crew_task", ["job-1", {"topic": "Tides"}]).get(timeout=30)
        assert crew["result"].startswith("# Tides\n")


@contextlib.contextmanager
def pictures():
    """A server with one picture."""

    class Picture(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a picture")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Picture)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.png"
    server.shutdown()


def test_the_call_on_the_page_has_the_fields_of_a_call(page, environment, tmp_path):
    printed = json.loads(page.take('"idempotency_key"'))
    echo = run("crewjob worker --task 'echo=cat > \"$CREWJOB_RESULT\"' --check-command echo", tmp_path, environment)
    said = re.search(r"the result (\{.*?)…?\.$", echo)[1]
    assert [f'"{field}":' in said for field in list(printed)[:5]] == [True] * 5, said
    with serving("crewjob worker -Q default --task 'echo=cat'", tmp_path, environment):
        result = app.send_task("echo", queue="default")
        given = result.get(timeout=30)
        assert given.keys() == printed.keys()
        memory = re.search(r'"memory": (\{.*?\})', page.take('"memory": {'))[1]
        assert app.backend.get_task_meta(result.id)["memory"].keys() == json.loads(memory).keys()


def test_the_script_of_the_page_returns_what_is_done_when_it_is_told_to_stop(page, environment, tmp_path):
    process = subprocess.Popen(["dash", "-c", page.take("trap 'jq")], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    # The trap is there as soon as the first step runs.
    eventually(lambda: Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split(), 20, "a first step")
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and json.loads(said)["complete"] is False


def test_the_image_of_the_page_has_its_tasks(page, shop, environment, tmp_path):
    command, folder = build(page.take("COPY --from=crewjob/worker"), shop, tmp_path)
    done = subprocess.run([*command, "--check-command", "?"], cwd=folder, env=environment, capture_output=True, text=True)
    assert "there are: backend.tasks.run_crew_task, shop.bare, shop.price, shop.ship, shop.thumbnail" in done.stderr


def test_the_permissions_of_the_page_are_tried_elsewhere(page):
    assert 'include_str!("../../../docs/worker-commands.md")' in (PROJECT / "tests/it/worker/rights.rs").read_text()
    page.take("ACL SETUSER worker")


def test_the_report_of_the_page_pays_for_no_step_twice(page, environment, tmp_path):
    (tmp_path / "report.py").write_text(page.take("# report.py"))
    (tmp_path / "tasks.yaml").write_text(page.take("shop.report:"))
    with serving("crewjob worker -Q default --tasks tasks.yaml", tmp_path, environment):
        report = app.send_task("shop.report", kwargs={"topic": "Tides"}, queue="default").get(timeout=30)
    assert report.splitlines() == ["research of Tides", "write of Tides", "review of Tides"]
    # As an earlier attempt has left it.
    state = tmp_path / "state"
    state.mkdir()
    (state / "research").write_text("paid before\n")
    call = json.dumps({"kwargs": {"topic": "Tides"}})
    printed = run("python3 report.py", tmp_path, environment | {"CREWJOB_STATE_DIR": str(state)}, input=call)
    *checkpoints, result = map(json.loads, printed.splitlines())
    assert checkpoints == [{"checkpoint": True}] * 2
    assert result["result"].splitlines() == ["paid before", "write of Tides", "review of Tides"]


def test_every_block_of_the_page_is_run(page):
    """The last one of the page: those before have used the blocks."""
    assert page.unused == []


# === the examples' READMEs ===


@pytest.mark.parametrize("example", ["shell-crew", "python-crew", "node-crew"])
def test_the_readme_of_an_example_runs_as_printed(example, environment, tmp_path):
    needs(*(["node"] if example == "node-crew" else []))
    page, folder = Page(EXAMPLES / example / "README.md"), copied(EXAMPLES / example, tmp_path)
    trial = page.take("--check-command" if example == "shell-crew" else "echo '{")
    assert "# Tides" in (said := run(trial, folder, environment)) or "# An example" in said
    with serving(page.take("export REDIS_URL"), folder, environment):
        answered(run(page.take("celery -b"), folder, environment), "# Tides\n")
    root = tmp_path / "root"
    root.mkdir()
    command, where = build(page.take("ENTRYPOINT"), folder, root)
    done = subprocess.run([*command, "--check-command", "backend.tasks.run_crew_task"], cwd=where, env=environment)
    assert done.returncode == 0
    assert page.unused == []


def answered(task, begins):
    result = app.AsyncResult(task).get(timeout=60)
    assert result["result"].startswith(begins), result


def test_the_readme_of_the_crewai_crew_runs_as_printed(environment, tmp_path):
    needs("kubectl")
    page, folder, port = Page(EXAMPLES / "crewai-crew/README.md"), copied(EXAMPLES / "crewai-crew", tmp_path), str(free_port())
    crewai = environment | {"PATH": f"{tmp_path}/bin:{CREWAI.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    with serving(page.take("./stub.py --port 8000").replace("8000", port), folder, crewai, 120):
        answered(run(page.take("celery -b"), folder, environment), "Current Task: Edit the draft on Tides")

    secret = json.loads(run(page.take("kubectl create secret"), folder, environment | {"OPENAI_API_KEY": "key"}))
    assert list(secret["data"]) == ["OPENAI_API_KEY"]
    values = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load(sys.stdin)['worker'])))"
    given = subprocess.run([CREWAI, "-c", values], input=page.take("existingSecret: model"), stdout=subprocess.PIPE, text=True, check=True)
    chart = (PROJECT / "charts/crewjob-operator/values.yaml").read_text()
    worker = chart[chart.index("\nworker:") :]
    assert all(f"\n  {key}:" in worker for key in json.loads(given.stdout)), given.stdout

    root = tmp_path / "root"
    root.mkdir()
    _, where = build(page.take("RUN pip install"), folder, root)
    assert (where / "crewjob-0.1.0-py3-none-any.whl").exists()
    command, _ = build(page.take("ENTRYPOINT"), folder, root)
    done = subprocess.run([*command, "--check-command", "?"], cwd=where, env=environment, capture_output=True, text=True)
    assert "there are: backend.tasks.run_crew_task" in done.stderr
    assert page.unused == []


def test_the_readme_of_the_package_runs_as_printed(environment, tmp_path):
    page, package = Page(PACKAGE / "README.md"), copied(PACKAGE, tmp_path)
    run(page.take("pip install ./python"), package.parent, environment)
    assert (Path(environment["SITE"]) / "crewjob/py.typed").exists()
    assert (package.parent / "dist/crewjob-0.1.0-py3-none-any.whl").exists()
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("shop.py", "tasks.yaml", "app.py"):
        (folder / name).write_text(page.take(f"# {name}"))
    check, serve = page.take("--check-command shop.price").splitlines()
    assert "the result 3" in run(check, folder, environment)
    for worker in (serve, page.take("celery -A app worker")):
        with serving(worker, folder, environment, 60):
            assert app.send_task("shop.price", ["milk"], queue="default").get(timeout=30) == 2
            error = app.send_task("shop.price", ["ink"], queue="default").get(timeout=30, propagate=False)
            assert isinstance(error, KeyError)
    # The crew of examples/crewai-crew makes this call.
    compile(page.take("crewjob.crewai.checkpoints()"), "README.md", "exec")
    assert page.unused == []


def test_an_exception_keeps_its_type_for_python_clients(environment, tmp_path):
    error = lambda kind: json.dumps({"error": {"type": kind, "message": "no"}})  # noqa: E731
    tasks = {f"raise.{kind}": kind for kind in ("ValueError", "builtins.KeyError", "json.decoder.Missing", "NoStock", "SystemExit")}
    options = " ".join(f"--task '{task}=echo '\\''{error(kind)}'\\'''" for task, kind in tasks.items())
    with serving(f"crewjob worker -Q default {options}", tmp_path, environment):
        raised = {kind: type(app.send_task(task, queue="default").get(timeout=30, propagate=False)) for task, kind in tasks.items()}
    assert (raised["ValueError"], raised["builtins.KeyError"]) == (ValueError, KeyError)
    names = {kind: (cls.__name__, issubclass(cls, Exception)) for kind, cls in raised.items()}
    assert names["json.decoder.Missing"] == ("Missing", True)
    assert (names["NoStock"], names["SystemExit"]) == (("NoStock", True), ("SystemExit", True))
