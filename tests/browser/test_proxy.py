"""Behind a proxy that signs its users in: each has its own rights, and no other address can name a user."""

import pytest
from gateway import READ, WRITE, Gateway, rules
from gateways import RBAC
from playwright.sync_api import expect
from waiting import until

USER, GROUPS = "X-Forwarded-User", "X-Forwarded-Groups"


def grants(tenant, name: str, kind: str, verbs: list[str]) -> None:
    """A user or a group gets these rights in the namespace."""
    plane, place = tenant.control_plane, f"{RBAC}/namespaces/{tenant.namespace}"
    plane.request("POST", f"{place}/roles", {"metadata": {"name": name}, "rules": rules(verbs)})
    subject = {"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    plane.request("POST", f"{place}/rolebindings", {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})


@pytest.fixture(scope="module")
def proxied(bed, tmp_path_factory):
    """A gateway for which the machine itself is the proxy."""
    grants(bed.a, "ada", "User", WRITE)
    grants(bed.b, "crew", "Group", READ)
    options = ["--mode", "impersonate", "--trusted-proxies", "127.0.0.1/32", "--user-header", USER, "--groups-header", GROUPS]
    gateway = Gateway(tmp_path_factory.mktemp("proxied"), bed.control_plane.kubeconfig, bed.a.namespace, *options)
    until("the authorizer knows the roles", lambda: gateway.get(f"api/jobs?namespace={bed.a.namespace}", x_forwarded_user="ada").status == 200)
    yield gateway
    gateway.stop()


def test_a_user_that_the_proxy_names_sees_and_does_what_its_rights_allow(look, bed, proxied):
    bed.a.job("own", suspend=True)
    bed.b.job("of-the-group", suspend=True)
    page = look(at=proxied.address, headers={USER: "ada"})
    expect(page.locator("#user")).to_have_text("ada")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator("tbody")).to_contain_text("own")
    both = look(at=proxied.address, headers={USER: "ada", GROUPS: "other, crew"})
    expect(both.locator("tbody tr")).to_have_count(2)
    page.click("tbody a.whole")
    page.click("#act-cancel")
    page.click("#dialog-yes")
    until("it is cancelled", lambda: bed.a.get("crewjobs", "own")["spec"].get("cancel"))
    refused = proxied.act(None, {"action": "cancel", "jobs": [{"namespace": bed.b.namespace, "name": "of-the-group"}], "expected": 1},
                          x_forwarded_user="ada", x_forwarded_groups="crew")
    [result] = refused.json["results"]
    assert not result["done"] and "forbidden" in result["message"]
    other_site = proxied.act(None, {"action": "cancel", "filter": "", "expected": 9}, x_forwarded_user="ada", sec_fetch_site="cross-site")
    assert other_site.problem == "cross-site", "its cookies may have gone along"


def test_without_a_name_or_with_one_of_kubernetes_own_nothing_is_done(proxied):
    for headers in ({}, {"x_forwarded_user": "system:admin"}, {"x_forwarded_user": "ada", "x_forwarded_groups": "system:masters"}):
        assert proxied.get("api/jobs", **headers).problem == "unauthenticated", headers
    assert proxied.get("api/jobs", x_forwarded_user="ada", impersonate_user="system:admin").problem == "refused-header"


def test_a_forged_name_from_another_address_is_refused_and_counted(bed, tmp_path):
    options = ["--mode", "impersonate", "--trusted-proxies", "192.0.2.0/24", "--user-header", USER]
    elsewhere = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, *options)
    try:
        forged = elsewhere.get("api/jobs", x_forwarded_user="ada", x_forwarded_for="192.0.2.1")
        assert forged.problem == "untrusted-proxy"
        assert elsewhere.metric("crewjob_gateway_requests_total") >= 1
    finally:
        elsewhere.stop()


def test_with_a_fixed_account_the_page_asks_for_no_token(look, bed, tmp_path):
    fixed = Gateway(tmp_path, bed.control_plane.kubeconfig, bed.a.namespace, "--mode", "fixed")
    try:
        bed.a.job("own", suspend=True)
        page = look(at=fixed.address, path=f"#/jobs?namespace={bed.a.namespace}")
        expect(page.locator("tbody a.whole")).to_have_text("own")
        expect(page.locator("#sign-out")).not_to_be_visible()
    finally:
        fixed.stop()
