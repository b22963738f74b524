"""`make demo` and `make demo-down`, with stand-ins for docker, kind, k3d, minikube, kubectl, helm and the cluster script.

The stand-ins (demo_stand_in) record their calls and make nothing: these tests hold the order of the steps, what is removed
and what the errors say. That the real programs take these arguments is held by their documentation only.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from chart import PROJECT

STAND_IN = Path(__file__).with_name("demo_stand_in")
TOOLS = ("kind", "k3d", "minikube")
# What the scripts need of the machine.
PROGRAMS = """awk basename bash cat cut date dirname env find grep head ls mkdir mkfifo mktemp mv paste rm sed sha256sum sleep
sort tail tee touch tr uname xargs""".split()
OPERATOR, WORKER = "crewjob/crewjob:demo", "crewjob/celery-worker:demo"
CREATE = {
    "kind": "kind create cluster --name crewjob-demo --kubeconfig {kubeconfig} --wait 180s",
    "k3d": "k3d cluster create crewjob-demo --image stable --kubeconfig-update-default=false --wait --timeout 300s",
    "minikube": "minikube start --profile crewjob-demo --interactive=false",
}
LOAD = {
    "kind": [f"kind load docker-image --name crewjob-demo {OPERATOR} {WORKER}"],
    "k3d": [f"k3d image import --cluster crewjob-demo {OPERATOR} {WORKER}"],
    "minikube": [f"minikube image load --profile crewjob-demo {image}" for image in (OPERATOR, WORKER)],
}
DELETE = {
    "kind": "kind delete cluster --name crewjob-demo --kubeconfig {kubeconfig}",
    "k3d": "k3d cluster delete crewjob-demo",
    "minikube": "minikube delete --profile crewjob-demo",
}
LIST = {
    "kind": "kind get clusters",
    "k3d": "k3d cluster list --no-headers",
    "minikube": "minikube profile list --output json",
}


class Machine:
    """A machine with some programs on its PATH, and a copy of the scripts."""

    def __init__(self, path: Path):
        self.path = path
        self.cache = path / "cache"
        self.project = path / "project"
        self.stand_in = path / "stand-in"
        (self.stand_in / "things").mkdir(parents=True)
        (path / "bin").mkdir()
        for program in PROGRAMS:
            (path / "bin" / program).symlink_to(shutil.which(program))
        scripts = self.project / "tests/cluster"
        shutil.copytree(PROJECT / "tests/cluster/lib", scripts / "lib")
        shutil.copytree(PROJECT / "tests/cluster/bin", scripts / "bin")
        shutil.copy(PROJECT / "tests/cluster/demo", scripts)
        (scripts / "cluster").symlink_to(STAND_IN)
        chart = self.project / "charts/crewjob-operator"
        chart.mkdir(parents=True)
        shutil.copy(PROJECT / "charts/crewjob-operator/Chart.yaml", chart)

    def has(self, *programs: str) -> "Machine":
        for program in programs:
            (self.path / "bin" / program).symlink_to(STAND_IN)
        return self

    def demo(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        (self.stand_in / "calls").write_text("")
        env = {"PATH": str(self.path / "bin"), "HOME": str(self.path), "CREWJOB_CACHE": str(self.cache)}
        env |= {"STAND_IN": str(self.stand_in)} | settings
        command = [self.project / "tests/cluster/demo", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, stdin=subprocess.DEVNULL)

    def calls(self, *beginnings: str) -> list[str]:
        calls = (self.stand_in / "calls").read_text().splitlines()
        return [call for call in calls if not beginnings or call.startswith(beginnings)]

    def make(self, thing: str) -> None:
        path = self.stand_in / "things" / thing
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def things(self, *folders: str) -> list[str]:
        root = self.stand_in / "things"
        return sorted(
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.is_file() and (not folders or path.relative_to(root).parts[0] in folders)
        )

    def kubeconfig(self, tool: str, name: str = "crewjob-demo") -> str:
        return str(self.cache / "demo/docker" / tool / name / "kubeconfig")


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def with_docker(machine: Machine, *tools: str) -> Machine:
    return machine.has("docker", "kubectl", "helm", *tools)


def succeeded(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def failed(done: subprocess.CompletedProcess) -> str:
    assert done.returncode != 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_the_demo_builds_the_images_makes_a_cluster_loads_them_and_follows_the_job(machine, tool):
    with_docker(machine, tool)
    said = succeeded(machine.demo(CLUSTER=tool))
    kubeconfig = machine.kubeconfig(tool)
    steps = machine.calls("docker build", CREATE[tool].split(" crewjob")[0], *LOAD[tool], "helm")
    record = Path(kubeconfig).parent
    assert steps[:-1] == [
        f"docker build --tag {OPERATOR} --iidfile {record}/crewjob.iid --file Dockerfile .",
        f"docker build --tag {WORKER} --iidfile {record}/celery-worker.iid --file examples/celery-worker/Dockerfile .",
        CREATE[tool].format(kubeconfig=kubeconfig),
        *LOAD[tool],
    ]
    assert steps[-1].startswith(f"helm --kubeconfig {kubeconfig} upgrade --install crewjob charts/crewjob-operator ")
    assert "--set operator.image.tag=demo --set worker.image.tag=demo" in steps[-1]
    for line in ("1 wanted, 1 ready", "Running on crewjob-worker-1", "Succeeded", 'result     "a course"'):
        assert line in said


@pytest.mark.parametrize("tool", TOOLS)
def test_no_kubeconfig_but_that_of_the_demo_is_read_or_written(machine, tool):
    with_docker(machine, tool)
    succeeded(machine.demo(CLUSTER=tool))
    calls = machine.calls("kubectl", "helm")
    assert calls and all(call.split()[1:3] == ["--kubeconfig", machine.kubeconfig(tool)] for call in calls)
    assert Path(machine.kubeconfig(tool)).exists()
    assert not (machine.path / ".kube").exists()


@pytest.mark.parametrize(
    ("programs", "fails", "chosen", "found"),
    [
        (["docker", "kind", "k3d"], "", "kind", "Docker was found, and kind k3d.\n"),
        (["docker", "k3d", "minikube"], "", "k3d", "Docker was found, and k3d minikube.\n"),
        (["docker", "minikube"], "", "minikube", "Docker was found, and minikube.\n"),
        (["docker"], "", "own", "Docker was found, but none of kind k3d minikube.\n"),
        (["docker", "kind"], "docker info", "own", "Docker was found, but its daemon does not answer"),
        (["kind"], "", "own", "Docker was not found.\n"),
        ([], "", "own", "Docker was not found.\n"),
    ],
)
def test_without_cluster_the_demo_says_what_it_found_what_it_uses_and_how_to_choose(machine, programs, fails, chosen, found):
    machine.has("kubectl", "helm", *programs)
    said = succeeded(machine.demo(FAILS=fails))
    assert found in said
    assert f"Using CLUSTER={chosen}. To choose: CLUSTER=kind, k3d or minikube" in said
    assert bool(machine.calls("cluster --name crewjob-demo up")) == (chosen == "own")
    assert machine.things("kind", "k3d", "minikube") == ([] if chosen == "own" else [f"{chosen}/crewjob-demo"])


@pytest.mark.parametrize("where", ["own", "current", *TOOLS])
def test_the_demo_says_how_long_it_takes_and_what_it_installs_before_it_makes_anything(machine, where):
    with_docker(machine, *TOOLS)
    said = failed(machine.demo(CLUSTER=where, FAILS="docker build\ncluster --name crewjob-demo prepare\nhelm upgrade"))
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ") and line[2] != " "][:2] == ["takes", "installs"]
    remove = "make demo-down" if where == "own" else f"make demo-down CLUSTER={where}"
    assert f"  removes   {remove}: " in said
    assert machine.things("kind", "k3d", "minikube", "release", "images") == []


def test_a_cluster_without_docker_is_announced_with_the_packages_that_it_installs(machine):
    said = succeeded(machine.demo(CLUSTER="own"))
    assert "takes     about 20 minutes on two cores" in said
    assert "  installs  Debian packages, with apt-get: buildah containerd debootstrap" in said
    assert f"into {machine.cache}" in said


def test_the_cluster_without_docker_runs_the_images_of_the_operator_and_of_the_celery_worker(machine):
    succeeded(machine.demo(CLUSTER="own"))
    commands = [call.split()[3] for call in machine.calls("cluster")]
    assert [command for command in commands if command not in ("kubectl", "helm")] == ["prepare", "up", "images", "load"]
    [install] = machine.calls("cluster --name crewjob-demo helm")
    assert "--set-string operator.podAnnotations.crewjob\\.dev/image=ID of crewjob " in install
    assert "--set-string worker.podAnnotations.crewjob\\.dev/image=ID of celery-worker" in install


@pytest.mark.parametrize(("tool", "chosen"), [*((tool, True) for tool in TOOLS), ("kind", False)])
def test_demo_down_removes_the_cluster_and_the_images_of_the_demo_and_no_other(machine, tool, chosen):
    with_docker(machine, tool)
    before = [f"{tool}/mine", "images/crewjob_crewjob:0.1.0"]
    for thing in before:
        machine.make(thing)
    succeeded(machine.demo(CLUSTER=tool))
    said = succeeded(machine.demo("down", **({"CLUSTER": tool} if chosen else {})))
    assert f"The cluster crewjob-demo of {tool} is gone." in said
    assert machine.things(tool, "images") == sorted(before)
    assert not Path(machine.kubeconfig(tool)).parent.exists()
    assert DELETE[tool].format(kubeconfig=machine.kubeconfig(tool)) in machine.calls(tool)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_cluster_of_that_name_that_was_there_before_is_left_alone(machine, tool):
    with_docker(machine, tool)
    machine.make(f"{tool}/crewjob-demo")
    said = failed(machine.demo(CLUSTER=tool))
    assert f"{tool} has a cluster named crewjob-demo, which this demo did not make: it is left alone." in said
    assert f"make demo CLUSTER={tool} CLUSTER_NAME=crewjob-demo-2" in said
    assert f"This demo made no cluster with {tool}: nothing is removed." in succeeded(machine.demo("down", CLUSTER=tool))
    assert machine.things(tool) == [f"{tool}/crewjob-demo"]
    assert machine.things("images", "release") == []


def test_under_another_name_the_demo_runs_beside_a_cluster_that_was_there_before(machine):
    with_docker(machine, "kind").make("kind/crewjob-demo")
    said = succeeded(machine.demo(CLUSTER="kind", CLUSTER_NAME="mine"))
    assert "make demo-down CLUSTER=kind CLUSTER_NAME=mine\n" in said
    assert machine.things("kind") == ["kind/crewjob-demo", "kind/mine"]
    succeeded(machine.demo("down", CLUSTER="kind", CLUSTER_NAME="other"))
    assert machine.things("kind") == ["kind/crewjob-demo", "kind/mine"]
    succeeded(machine.demo("down", CLUSTER="kind"))
    assert machine.things("kind") == ["kind/crewjob-demo"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_cluster_whose_creation_was_interrupted_is_removed_and_made_anew(machine, tool):
    with_docker(machine, tool)
    create = CREATE[tool].split(" --")[0].removesuffix(" crewjob-demo")
    said = failed(machine.demo(CLUSTER=tool, FAILS=create))
    assert f"{tool} could not make the cluster crewjob-demo." in said
    machine.make(f"{tool}/crewjob-demo")
    succeeded(machine.demo(CLUSTER=tool))
    changes = [call for call in machine.calls(tool) if call.startswith((create, DELETE[tool].split(" --")[0]))]
    assert [call.split()[1:3][-1] for call in changes if "delete" in call]
    assert create in changes[-1]
    succeeded(machine.demo("down"))
    assert machine.things(tool) == []


@pytest.mark.parametrize("tool", TOOLS)
def test_a_second_run_uses_the_cluster_of_the_first(machine, tool):
    with_docker(machine, tool)
    succeeded(machine.demo(CLUSTER=tool))
    succeeded(machine.demo(CLUSTER=tool))
    assert machine.calls("docker build") and machine.calls(*LOAD[tool])
    assert not machine.calls("kind create", "k3d cluster create", "kind delete", "k3d cluster delete", "minikube delete")


def test_the_images_go_with_the_last_cluster_that_runs_them(machine):
    with_docker(machine, "kind", "k3d")
    succeeded(machine.demo(CLUSTER="kind"))
    succeeded(machine.demo(CLUSTER="k3d"))
    succeeded(machine.demo("down", CLUSTER="kind"))
    assert machine.things("images")
    succeeded(machine.demo("down", CLUSTER="k3d"))
    assert machine.things("images") == []


def test_kind_loads_an_archive_where_it_cannot_load_from_docker(machine):
    with_docker(machine, "kind")
    succeeded(machine.demo(CLUSTER="kind", FAILS="kind load docker-image"))
    archive = Path(machine.kubeconfig("kind")).with_name("images.tar")
    assert machine.calls("docker save", "kind load image-archive") == [
        f"docker save --output {archive} {OPERATOR} {WORKER}",
        f"kind load image-archive --name crewjob-demo {archive}",
    ]
    assert not archive.exists()


@pytest.mark.parametrize(
    ("programs", "fails", "settings", "advice"),
    [
        (["kind", "kubectl", "helm"], "", {}, "docker: https://docs.docker.com/"),
        (["docker", "kubectl", "helm"], "", {}, "kind: https://kind.sigs.k8s.io/"),
        (["docker", "kind", "helm"], "", {}, "kubectl: https://kubernetes.io/docs/tasks/tools/"),
        (["docker", "kind", "kubectl"], "", {}, "helm: 3.14 or newer, https://helm.sh/"),
        (None, "docker info", {}, "the Docker daemon does not answer: start it (Docker Desktop, or: sudo systemctl start docker)"),
        (None, "kind get clusters", {}, "kind cannot list its clusters; run the command that does to see why: kind get clusters"),
        (None, "docker build", {}, "docker build of Dockerfile failed. Its reason is above; often the network, a proxy or the disk"),
        (None, "docker image inspect", {}, "Change it with: docker buildx use default"),
        (None, "kind create", {}, "kind could not make the cluster crewjob-demo. Its reason is above"),
        (None, "kind load", {}, "kind could not load the images into crewjob-demo. Its reason is above"),
        (None, "", {"MINOR": "31"}, "the cluster runs Kubernetes 1.31, and the chart needs 1.32 or newer"),
        (None, "", {"CLUSTER": "docker"}, "CLUSTER=docker: choose kind, k3d, minikube, own or current, or leave it out"),
        (None, "", {"CLUSTER_NAME": "My_cluster"}, "cluster name 'My_cluster': use up to 32 lower-case letters"),
    ],
)
def test_an_error_of_the_demo_names_its_remedy(machine, programs, fails, settings, advice):
    machine.has(*(programs or ["docker", "kind", "kubectl", "helm"]))
    said = failed(machine.demo(**({"CLUSTER": "kind", "FAILS": fails} | settings)))
    assert advice in said
    assert machine.things("release") == []


def test_the_cluster_of_a_failed_demo_is_removed(machine):
    with_docker(machine, "kind")
    failed(machine.demo(CLUSTER="kind", FAILS="kind load"))
    assert machine.things("kind", "images")
    succeeded(machine.demo("down"))
    assert machine.things() == []


def test_a_cluster_that_could_not_be_removed_stays_recorded(machine):
    with_docker(machine, "kind")
    succeeded(machine.demo(CLUSTER="kind"))
    assert "start it, then run this again to remove the cluster crewjob-demo" in failed(machine.demo("down", FAILS="docker info"))
    assert "kind could not remove the cluster crewjob-demo" in failed(machine.demo("down", FAILS="kind delete"))
    assert machine.things("kind") == ["kind/crewjob-demo"]
    succeeded(machine.demo("down"))
    assert machine.things("kind", "images") == []


def test_on_the_cluster_of_a_kubeconfig_demo_down_removes_the_objects_that_the_demo_made(machine):
    machine.has("kubectl", "helm")
    said = succeeded(machine.demo(CLUSTER="current"))
    assert "context my-context" in said
    assert machine.things("release", "namespace", "customresourcedefinition")
    succeeded(machine.demo("down", CLUSTER="current"))
    assert machine.things() == []


def test_on_the_cluster_of_a_kubeconfig_the_namespace_and_resource_definitions_that_were_there_before_stay(machine):
    machine.has("kubectl", "helm")
    before = ["customresourcedefinition/crewjobs.crewjob.dev", "namespace/crewjob"]
    for thing in before:
        machine.make(thing)
    succeeded(machine.demo(CLUSTER="current"))
    succeeded(machine.demo("down", CLUSTER="current"))
    assert machine.things() == before


def test_a_release_that_the_demo_did_not_make_is_neither_upgraded_nor_removed(machine):
    machine.has("kubectl", "helm").make("release")
    said = failed(machine.demo(CLUSTER="current"))
    assert "has a Helm release crewjob, which this demo did not make: it is left alone" in said
    assert "helm uninstall crewjob -n crewjob" in said
    succeeded(machine.demo("down", CLUSTER="current"))
    assert not machine.calls("helm")
    assert machine.things() == ["release"]


def test_demo_down_without_cluster_never_touches_the_cluster_of_a_kubeconfig(machine):
    machine.has("kubectl", "helm")
    succeeded(machine.demo(CLUSTER="current"))
    assert "CLUSTER=current removes it from that of your kubeconfig" in succeeded(machine.demo("down"))
    assert machine.calls() == []


def test_demo_down_of_a_cluster_without_docker_names_the_packages_that_stay(machine):
    succeeded(machine.demo(CLUSTER="own"))
    said = succeeded(machine.demo("down"))
    assert machine.calls() == ["cluster --name crewjob-demo down"]
    assert "  apt-get remove buildah containerd debootstrap iproute2" in said


def test_a_cluster_without_docker_that_the_demo_did_not_make_is_left_alone(machine):
    (machine.cache / "run/crewjob-demo").mkdir(parents=True)
    said = failed(machine.demo(CLUSTER="own"))
    assert "make demo CLUSTER=own CLUSTER_NAME=crewjob-demo-2" in said
    succeeded(machine.demo("down"))
    assert machine.calls() == []
