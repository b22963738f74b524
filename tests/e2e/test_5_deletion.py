"""What Kubernetes deletes with a CrewJob."""

import pytest

import crew
import kube
from waiting import until

# The operator takes most of a minute over two jobs of test_5_stops.py: they begin here, and go on beside the tests up to there.
pytestmark = pytest.mark.usefixtures("clean", "expired", "unheard")


def test_a_finished_job_goes_with_the_config_map_of_its_result():
    crew.start(crew.job("finished", inputs={"result_bytes": 8000}))
    result = crew.in_phase("finished", "Succeeded")["result"]
    name = result["configMapName"]
    assert result["sizeBytes"] > 8000 and len(kube.get("configmap", name)["data"]["result.json"]) == result["sizeBytes"]
    kube.kubectl("delete", "crewjob", "finished", "--wait=true", "--timeout=10s")
    until("the garbage collector has taken the result", lambda: kube.find("configmap", name) is None)
