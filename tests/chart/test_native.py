"""Workers that run commands: the operator's binary in the image of a crew."""

from chart import BUNDLED, NATIVE, find, refusal, render


def pod(*sets):
    return find(render(*sets), "Deployment", "crewjob-worker")["spec"]["template"]


def test_the_worker_comes_from_the_operators_image_into_the_image_of_the_crew():
    spec = pod(*NATIVE)["spec"]
    (install,), (worker,) = spec["initContainers"], spec["containers"]
    assert install["args"] == ["install", "/opt/crewjob"]
    assert worker["image"] == "crew:v1"
    assert worker["command"] == ["/opt/crewjob/crewjob", "worker"]
    arguments = dict(zip(worker["args"][::2], worker["args"][1::2], strict=True))
    assert arguments["--queues"] == "crew_jobs=crew.jobs,default=default"
    assert arguments["--hostname"] == "crew@$(POD_NAME)"
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "shareProcessNamespace" not in spec


def test_the_worker_puts_back_what_still_runs_before_its_grace_period_ends():
    spec = pod(*NATIVE, "worker.terminationGracePeriodSeconds=7200")["spec"]
    (worker,) = spec["containers"]
    arguments = dict(zip(worker["args"][::2], worker["args"][1::2], strict=True))
    assert (spec["terminationGracePeriodSeconds"], arguments["--shutdown-timeout"]) == (7200, "7180")


def test_a_queue_may_have_a_colon_in_its_name_as_in_a_pool():
    queues = [f"defaultPool.queues[{at}].name={name}" for at, name in enumerate(("app:jobs", "urgent:", "default"))]
    (worker,) = pod(*NATIVE, *queues)["spec"]["containers"]
    arguments = dict(zip(worker["args"][::2], worker["args"][1::2], strict=True))
    assert arguments["--queues"] == "app:jobs=app:jobs,urgent:=urgent:,default=default"


def test_the_tasks_are_a_file_and_their_change_rolls_the_workers_out():
    tasks = find(render(*NATIVE), "ConfigMap", "crewjob-worker-tasks")["data"]["tasks.yaml"]
    assert "/bin/crew" in tasks
    annotation = "crewjob.dev/tasks"
    before = pod(*NATIVE)["metadata"]["annotations"][annotation]
    assert before != pod(*NATIVE, "worker.native.tasks.crew.cache=0")["metadata"]["annotations"][annotation]


def arguments(worker):
    return dict(zip(worker["args"][::2], worker["args"][1::2], strict=True))


def test_states_of_jobs_are_on_redis_and_a_drain_waits_for_the_end_of_a_run_by_default():
    spec = pod(*NATIVE)["spec"]
    (worker,) = spec["containers"]
    said = arguments(worker)
    assert (said["--on-drain"], said["--state-retention"]) == ("finish", "86400")
    assert "--state-folder" not in said and "--state-max-bytes" not in said
    assert "states" not in {volume["name"] for volume in spec["volumes"]}


def test_states_of_jobs_may_be_on_a_volume_and_a_drain_may_stop_runs_at_their_checkpoints():
    state = ("volumeClaim=states", "maxBytes=1073741824", "retention=72h")
    spec = pod(*NATIVE, "worker.native.onDrain=Checkpoint", *(f"worker.native.state.{value}" for value in state))["spec"]
    (worker,) = spec["containers"]
    said = arguments(worker)
    assert (said["--on-drain"], said["--state-retention"]) == ("checkpoint", "259200")
    assert (said["--state-folder"], said["--state-max-bytes"]) == ("/var/lib/crewjob/states", "1073741824")
    assert {"name": "states", "mountPath": "/var/lib/crewjob/states"} in worker["volumeMounts"]
    assert {"name": "states", "persistentVolumeClaim": {"claimName": "states"}} in spec["volumes"]


def test_another_image_does_not_begin_with_what_the_programs_of_this_one_have_saved():
    (worker,) = pod(*NATIVE)["spec"]["containers"]
    assert {"name": "CREWJOB_IMAGE", "value": worker["image"]} in worker["env"]


def test_celery_workers_need_none_of_it():
    assert "initContainers" not in pod(BUNDLED)["spec"]


def test_native_workers_without_tasks_are_refused():
    assert "needs worker.native.tasks" in refusal(BUNDLED, "worker.native.enabled=true")
