"""The services beside the embedded Compute Engine: identities, secrets, logs, and what is refused."""

from __future__ import annotations

import base64
import datetime as dt
import json

import pytest
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account
from services_front import GCPFront, served

from cloudprovider.emulator import discovery_documents, gcp_filters
from cloudprovider.emulator.gcp_conditions import Condition, ConditionError
from cloudprovider.emulator.gcp_secrets import crc32c
from cloudprovider.emulator.gcp_tokens import Principal
from cloudprovider.emulator.gcp_wire import DEFAULT_ACCOUNT, NUMBER, PROJECT

P = f"/v1/projects/{PROJECT}"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
AUTOMATIC = {"replication": {"automatic": {}}}


@pytest.fixture
def cloud():
    with served(GCPFront) as front:
        yield front


class Caller:
    """A session of google-auth with a key; answers are documents, refusals too."""

    def __init__(self, cloud, key, scopes=(PLATFORM,)):
        credentials = service_account.Credentials.from_service_account_info(key, scopes=scopes)
        self._session, self._url = AuthorizedSession(credentials), cloud.url

    def __call__(self, method, path, body=None, **query):
        answer = self._session.request(method, self._url + path, json=body, params=query, timeout=30)
        return answer.json()

    def secret(self, id, value="", **more):
        """Make a secret, with a version if there is a value."""
        made = self("POST", f"{P}/secrets", {**AUTOMATIC, **more}, secretId=id)
        if value:
            data = base64.b64encode(value.encode()).decode()
            self("POST", f"{P}/secrets/{id}:addVersion", {"payload": {"data": data}})
        return made

    def read(self, id):
        """The value of a secret, or the status of the refusal."""
        answer = self("GET", f"{P}/secrets/{id}/versions/latest:access")
        if "error" in answer:
            return answer["error"]["status"]
        return base64.b64decode(answer["payload"]["data"]).decode()

    def bind(self, *bindings, resource=f"/v1/projects/{PROJECT}"):
        """Add bindings to a policy."""
        policy = self("POST", f"{resource}:getIamPolicy", {"options": {"requestedPolicyVersion": 3}})
        policy = {**policy, "version": 3, "bindings": [*policy.get("bindings", []), *bindings]}
        return self("POST", f"{resource}:setIamPolicy", {"policy": policy})

    def account(self, cloud, id="dask-machine"):
        """Another service account: its member's name, and a caller with its key."""
        made = self("POST", f"{P}/serviceAccounts", {"accountId": id})
        key = self("POST", f"{P}/serviceAccounts/{made['email']}/keys", {})
        file = json.loads(base64.b64decode(key["privateKeyData"]))
        return f"serviceAccount:{made['email']}", Caller(cloud, file)


@pytest.fixture
def person(cloud):
    return Caller(cloud, cloud.services.tokens.key_file())


def reason(answer):
    """The reason in the first detail of a refusal."""
    return answer["error"]["details"][0]["reason"]


# -- who it is -----------------------------------------------------------------------------------------


def exchanged(cloud, **changed):
    """Credentials that exchange their key at the token endpoint, as those of Google's universe do."""
    key = {**cloud.services.tokens.key_file(), "universe_domain": "googleapis.com", **changed}
    return service_account.Credentials.from_service_account_info(key, scopes=[PLATFORM])


def test_key_is_exchanged_for_a_token(cloud):
    """A key file's assertion is answered with a token of its account."""
    credentials = exchanged(cloud)

    credentials.refresh(Request())

    assert (
        cloud.services.tokens.key_file()["client_email"] == cloud.services.tokens.who(credentials.token).email
    )


def test_assertion_with_another_key_is_refused(cloud):
    """What somebody else signed opens nothing."""
    other = cloud.services.tokens.made_key(DEFAULT_ACCOUNT)

    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        exchanged(cloud, private_key=other["private_key"]).refresh(Request())


def test_assertion_of_another_time_is_refused(cloud):
    """When the cloud's clock is far ahead, an assertion is not in a reasonable timeframe."""
    cloud.inject("clock-skew", seconds=7200)

    with pytest.raises(RefreshError, match="reasonable timeframe"):
        exchanged(cloud).refresh(Request())


def test_self_signed_token_is_for_one_service(cloud):
    """Without scopes, a token that its owner signs is for the host that it names alone."""
    credentials = service_account.Credentials.from_service_account_info(cloud.services.tokens.key_file())
    credentials = credentials.with_always_use_jwt_access(True)
    seen = []
    for service in ("secretmanager", "compute"):
        credentials._create_self_signed_jwt(f"https://{service}.googleapis.com/")
        credentials.refresh(Request())
        header = {"Authorization": f"Bearer {credentials.token}"}
        seen.append(cloud.respond("GET", f"{P}/secrets", header, b"", "")[0])

    assert [200, 401] == seen


def test_nobody_is_refused(cloud):
    """A call without a token, and one with a token of nobody's, are answered 401 with why."""
    answers = [
        cloud.respond("GET", f"{P}/secrets", headers, b"", "")
        for headers in ({}, {"Authorization": "Bearer no"})
    ]

    assert [401, 401] == [status for status, _, _ in answers]
    assert ["CREDENTIALS_MISSING", "ACCESS_TOKEN_EXPIRED"] == [reason(json.loads(b)) for _, _, b in answers]


def test_scopes_limit_a_machines_token(cloud):
    """A machine's token does for what its scopes name, whatever its account may do."""
    email = cloud.services.tokens.key_file()["client_email"]
    narrow = cloud.services.tokens.token(email, ["https://www.googleapis.com/auth/logging.write"])
    wide = cloud.services.tokens.token(email, [PLATFORM])
    seen = [
        cloud.respond("GET", f"{P}/secrets", {"Authorization": f"Bearer {one['access_token']}"}, b"", "")
        for one in (narrow, wide)
    ]

    assert [403, 200] == [status for status, _, _ in seen]
    assert "ACCESS_TOKEN_SCOPE_INSUFFICIENT" == reason(json.loads(seen[0][2]))


def test_token_ends_with_its_account(cloud, person):
    """A deleted account's tokens are nobody's."""
    member, machine = person.account(cloud)
    person.bind({"role": "roles/secretmanager.viewer", "members": [member]})
    before = machine("GET", f"{P}/secrets")

    person("DELETE", f"{P}/serviceAccounts/{member.partition(':')[2]}")

    assert "error" not in before
    assert "UNAUTHENTICATED" == machine("GET", f"{P}/secrets")["error"]["status"]


# -- what is asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**AUTOMATIC, "labelz": {}}, 'Unknown name "labelz"'),
        ({**AUTOMATIC, "labels": {"a": 1}}, "labels.a"),
        ({**AUTOMATIC, "ttl": "soon"}, "ttl"),
        ({**AUTOMATIC, "labels": {"Dask": "x"}}, "label"),
        ({}, "replication"),
        ({**AUTOMATIC, "ttl": "9s", "expireTime": "2099-01-01T00:00:00Z"}, "Only one of"),
    ],
)
def test_wrong_bodies_are_refused(person, body, said):
    """What Google's description or documentation does not allow is an invalid argument that names the field."""
    answer = person("POST", f"{P}/secrets", body, secretId="one")

    assert "INVALID_ARGUMENT" == answer["error"]["status"]
    assert said in answer["error"]["message"]


def test_unknown_parameters_are_refused(person):
    """A parameter of the address that a method has not is refused."""
    answer = person("GET", f"{P}/secrets", filtre="x")

    assert 'Unknown name "filtre": Cannot bind query parameter' in answer["error"]["message"]


def test_answers_are_held_to_the_description():
    """An answer with a number of 64 bits that is no text, or with an unknown field, is found."""
    method, _ = discovery_documents.find("GET", f"{P}/secrets/a/versions/1:access")

    good = {"name": "x", "payload": {"data": "YQ==", "dataCrc32c": "1"}}
    assert [] == method.answer_problems(good)
    assert ["payload.dataCrc32c"] == [
        one.field for one in method.answer_problems({"payload": {"dataCrc32c": 1}})
    ]
    assert ["unknown"] == [one.kind for one in method.answer_problems({"nam": "x"})]


# -- secrets -------------------------------------------------------------------------------------------


def test_secret_is_kept_and_read(person):
    """A secret's newest version is what is read, and the older one is still there."""
    person.secret("one", "first")
    person.secret("one", "second")

    assert "second" == person.read("one")
    first = person("GET", f"{P}/secrets/one/versions/1:access")
    assert b"first" == base64.b64decode(first["payload"]["data"])
    assert f"projects/{NUMBER}/secrets/one/versions/1" == first["name"]


def test_checksum_of_a_payload():
    """The checksum is that of RFC 3720's examples."""
    assert 0x8A9136AA == crc32c(bytes(32))


def test_secrets_are_listed_by_label(person):
    """A list's filter names labels; without one, the newest come first, in pages."""
    for id, cluster in (("a", "x"), ("b", "y"), ("c", "x")):
        person.secret(id, labels={"dask-cluster": cluster})

    def ids(answer):
        return [one["name"].rpartition("/")[2] for one in answer.get("secrets", [])]

    assert ["c", "a"] == ids(person("GET", f"{P}/secrets", filter="labels.dask-cluster=x"))
    assert [] == ids(person("GET", f"{P}/secrets", filter="labels.dask-cluster=z"))
    first = person("GET", f"{P}/secrets", pageSize=2)
    assert ["c", "b"] == ids(first)
    assert ["a"] == ids(person("GET", f"{P}/secrets", pageSize=2, pageToken=first["nextPageToken"]))


def test_secret_name_is_taken_until_it_is_deleted(person):
    """A second secret of a name is refused; a deleted one is not found, and its name is free."""
    person.secret("one", "x")

    assert "ALREADY_EXISTS" == person.secret("one")["error"]["status"]
    assert {} == person("DELETE", f"{P}/secrets/one")
    assert "NOT_FOUND" == person.read("one")
    assert "error" not in person.secret("one")


def test_secret_expires(cloud, person):
    """A secret with a time to live is gone when that has passed."""
    made = person.secret("one", "x", ttl="600s")
    before = person.read("one")

    cloud.inject("clock-skew", seconds=1200)

    assert "x" == before
    assert "expireTime" in made
    assert "NOT_FOUND" == person.read("one")


def test_disabled_version_is_not_read(person):
    """A disabled version is refused until it is enabled; a destroyed one for ever."""
    person.secret("one", "x")
    seen = []
    for act in ("disable", "enable", "destroy"):
        person("POST", f"{P}/secrets/one/versions/1:{act}", {})
        seen.append(person.read("one"))

    assert ["FAILED_PRECONDITION", "x", "FAILED_PRECONDITION"] == seen


# -- who may do what -----------------------------------------------------------------------------------


def test_account_may_nothing_until_it_is_bound(cloud, person):
    """A new account reads nothing; a binding on one secret lets it read that one alone."""
    member, machine = person.account(cloud)
    person.secret("mine", "x")
    person.secret("other", "y")
    before = machine.read("mine")

    policy = person("GET", f"{P}/secrets/mine:getIamPolicy")
    binding = {"role": "roles/secretmanager.secretAccessor", "members": [member]}
    person("POST", f"{P}/secrets/mine:setIamPolicy", {"policy": {**policy, "bindings": [binding]}})

    assert ["PERMISSION_DENIED", "x", "PERMISSION_DENIED"] == [
        before,
        machine.read("mine"),
        machine.read("other"),
    ]
    refusal = machine("GET", f"{P}/secrets/other/versions/latest:access")["error"]
    assert refusal["message"].startswith("Permission 'secretmanager.versions.access' denied for resource")


def test_condition_on_names_holds(cloud, person):
    """A condition on the project's policy lets an account read the secrets whose names fit, and no list."""
    member, machine = person.account(cloud)
    person.secret("dask-a-machine", "x")
    person.secret("dask-a-client", "y")
    expression = "resource.name.extract('/secrets/{name}/').endsWith('-machine')"
    person.bind(
        {
            "role": "roles/secretmanager.admin",
            "members": [member],
            "condition": {"title": "machines", "expression": expression},
        }
    )

    assert ["x", "PERMISSION_DENIED"] == [machine.read("dask-a-machine"), machine.read("dask-a-client")]
    assert "PERMISSION_DENIED" == machine("GET", f"{P}/secrets")["error"]["status"]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("dask-a-w-k3j9x2", True), ("dask-a-scheduler", True), ("dask-ab-w-k3j9x2", False), ("other", False)],
)
def test_account_ends_machines_of_its_cluster_alone(cloud, person, name, allowed):
    """With a custom role and a condition, an account may delete instances of one cluster and of no other."""
    member, _ = person.account(cloud)
    role = {"title": "Dask machine", "includedPermissions": ["compute.instances.delete"], "stage": "GA"}
    made = person("POST", f"{P}/roles", {"roleId": "daskMachine", "role": role})
    expression = (
        'resource.type == "compute.googleapis.com/Instance" && (resource.name.endsWith("/dask-a-scheduler") || '
        'resource.name.extract("/instances/dask-a-w-{id}") != "")'
    )
    condition = {"title": "dask-a", "expression": expression}
    person.bind({"role": made["name"], "members": [member], "condition": condition})

    who = Principal(email=member.partition(":")[2], scopes=frozenset([PLATFORM]))
    resource = f"projects/{PROJECT}/zones/us-central1-a/instances/{name}"
    why = cloud.services.may(
        who, "compute.instances.delete", resource, type="compute.googleapis.com/Instance"
    )

    said = f"Required 'compute.instances.delete' permission for '{resource}'"
    assert ("" if allowed else said) == why


def test_policy_that_changed_meanwhile_is_kept(person):
    """Who sets a policy with an older etag is told to read it again."""
    old = person("POST", f"{P}:getIamPolicy", {})
    person("POST", f"{P}:setIamPolicy", {"policy": old})

    answer = person("POST", f"{P}:setIamPolicy", {"policy": old})

    assert [409, "ABORTED"] == [answer["error"]["code"], answer["error"]["status"]]


def test_conditions_need_version_three(cloud, person):
    """A conditional binding is refused below version 3, and shown below it only by a role of another name."""
    member, _ = person.account(cloud)
    condition = {"title": "t", "expression": "request.time < timestamp('2099-01-01T00:00:00Z')"}
    binding = {"role": "roles/compute.viewer", "members": [member], "condition": condition}
    policy = person("POST", f"{P}:getIamPolicy", {})

    refused = person("POST", f"{P}:setIamPolicy", {"policy": {**policy, "bindings": [binding]}})
    person.bind(binding)
    roles = [one["role"] for one in person("POST", f"{P}:getIamPolicy", {})["bindings"]]

    assert "INVALID_ARGUMENT" == refused["error"]["status"]
    assert ["roles/owner", "roles/compute.viewer_withcond"] == [role[:29] for role in roles]


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ({"role": "roles/compute.viewer", "members": ["serviceAccount:no@x.iam"]}, "does not exist"),
        ({"role": "roles/no", "members": ["user:a@example.com"]}, "Role roles/no is not supported"),
        ({"role": "roles/compute.viewer", "members": ["a@example.com"]}, "Invalid member"),
        (
            {
                "role": "roles/compute.viewer",
                "members": ["user:a@example.com"],
                "condition": {"title": "t", "expression": "resource.nam == ''"},
            },
            "compilation failed",
        ),
    ],
)
def test_wrong_bindings_are_refused(person, binding, said):
    """A binding of an unknown account, role, kind of member or condition is refused with why."""
    assert said in person.bind(binding)["error"]["message"]


def test_new_account_is_known_after_a_while(cloud, person):
    """While identities propagate, a new account can be bound only later, and its binding holds only later."""
    person.secret("one", "x")
    fault = cloud.inject("role-propagation", seconds=3600)
    member, machine = person.account(cloud)
    binding = {"role": "roles/secretmanager.secretAccessor", "members": [member]}
    early = person.bind(binding)
    cloud.account.faults.clear(fault.id)
    bound = person.bind(binding)
    cloud.inject("role-propagation", seconds=3600)
    soon = machine.read("one")
    cloud.account.faults.clear()

    assert "does not exist" in early["error"]["message"]
    assert "error" not in bound
    assert ["PERMISSION_DENIED", "x"] == [soon, machine.read("one")]


def test_custom_role_changes(cloud, person):
    """A custom role gives what it says now; deleted it gives nothing, and its id is kept until it is undeleted."""
    member, machine = person.account(cloud)
    role = {"title": "one", "includedPermissions": ["secretmanager.secrets.list"]}
    name = person("POST", f"{P}/roles", {"roleId": "one", "role": role})["name"]
    person.bind({"role": name, "members": [member]})

    def may():
        return "error" not in machine("GET", f"{P}/secrets")

    seen = [may()]
    person("PATCH", f"/v1/{name}", {"includedPermissions": []}, updateMask="includedPermissions")
    seen.append(may())
    person("PATCH", f"/v1/{name}", role)
    seen.append(may())
    person("DELETE", f"/v1/{name}")
    seen.append(may())
    again = person("POST", f"{P}/roles", {"roleId": "one", "role": role})
    person("POST", f"/v1/{name}:undelete", {})

    assert [True, False, True, False, True] == [*seen, may()]
    assert "FAILED_PRECONDITION" == again["error"]["status"]


def test_permissions_are_tested(cloud, person):
    """`testIamPermissions` answers those that the caller has."""
    member, machine = person.account(cloud)
    person.bind({"role": "roles/compute.viewer", "members": [member]})
    asked = {"permissions": ["compute.instances.list", "compute.instances.insert"]}

    assert asked == person("POST", f"{P}:testIamPermissions", asked)
    assert {"permissions": ["compute.instances.list"]} == machine("POST", f"{P}:testIamPermissions", asked)


def test_other_projects_are_denied(person):
    """A project that is not the caller's is one in which nothing is allowed."""
    answer = person("GET", "/v1/projects/somebody-elses/secrets")

    assert "PERMISSION_DENIED" == answer["error"]["status"]


def test_account_ids_are_checked(person):
    """An account's id is 6 to 30 characters, and there is one of each."""
    long = [
        person("POST", f"{P}/serviceAccounts", {"accountId": id}) for id in ("short", "dask-one", "dask-one")
    ]

    assert [400, None, 409] == [one.get("error", {}).get("code") for one in long]
    emails = [one["email"] for one in person("GET", f"{P}/serviceAccounts")["accounts"]]
    assert f"dask-one@{PROJECT}.iam.gserviceaccount.com" in emails


def test_denied_call_names_what_is_missing(cloud, person):
    """A call that is made to be denied is refused in the service's words, with the permission."""
    cloud.inject("denied", operation="secrets.list", times=1)

    refusal = person("GET", f"{P}/secrets")["error"]

    said = f"Permission 'secretmanager.secrets.list' denied for resource 'projects/{PROJECT}' (or it may not exist)."
    assert said == refusal["message"]
    assert {"permission": "secretmanager.secrets.list", "resource": f"projects/{PROJECT}"} == refusal[
        "details"
    ][0]["metadata"]
    assert "error" not in person("GET", f"{P}/secrets")


def test_person_is_held_to_a_role(cloud, person):
    """With a role's permissions injected as policy, the person may do what it has, and machines what theirs have."""
    member, machine = person.account(cloud)
    person.secret("one", "x")
    person.bind({"role": "roles/secretmanager.secretAccessor", "members": [member]})
    cloud.inject("policy", allowed=[{"includedPermissions": ["secretmanager.secrets.list"]}])

    assert "error" not in person("GET", f"{P}/secrets")
    assert ["PERMISSION_DENIED", "x"] == [person.read("one"), machine.read("one")]


# -- conditions and filters ----------------------------------------------------------------------------

INSTANCE = {
    "resource.name": "projects/p/zones/z/instances/dask-a-w-1",
    "resource.type": "compute.googleapis.com/Instance",
    "request.time": dt.datetime(2026, 6, 1, tzinfo=dt.UTC),
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("resource.name.startsWith('projects/p/zones/z/instances/dask-a-')", True),
        ("resource.name.startsWith('dask')", False),
        ("!resource.name.endsWith('-2') && resource.name.endsWith('-1')", True),
        ("resource.name.extract('zones/{zone}/') == 'z'", True),
        ("resource.name.extract('/instances/dask-a-w-{id}-') == ''", True),
        ('resource.type == "x" || resource.type == "compute.googleapis.com/Instance"', True),
        ("(resource.type == 'x' || true) && resource.type != 'x'", True),
        ("request.time < timestamp('2026-06-01T00:00:01Z')", True),
        ("request.time >= timestamp('2026-06-01T00:00:01Z')", False),
        ("resource.service == 'compute.googleapis.com'", False),  # the attribute is missing: an error
        ("resource.service == 'x' || resource.type.startsWith('compute')", True),  # the other side decides
        ("resource.service == 'x' && false || true", True),
        ("!(resource.service == 'x')", False),
        ("request.time == 'soon'", False),
    ],
)
def test_conditions_hold(text, holds):
    """Conditions are what CEL says they are; one with an error does not hold."""
    assert holds is Condition(text).holds(INSTANCE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "resource.name.matches('x')",
        "resource.name.startsWith('x'",
        "resource.name.extract('no braces')",
        "resource.labels.x == 'y'",
        "true ? true : false",
        "timestamp('soon') < request.time",
        " || ".join(["true"] * 14),
    ],
)
def test_unknown_conditions_are_refused(text):
    """What the emulator does not know is no condition at all."""
    with pytest.raises(ConditionError):
        Condition(text)


ENTRY = {
    "logName": "projects/p/logs/x",
    "resource": {"labels": {"instance_id": "12"}},
    "severity": "WARNING",
    "timestamp": "2026-06-01T00:00:00Z",
    "jsonPayload": {"message": "Hello there", "instance": {"name": "dask-a"}},
    "labels": {"compute.googleapis.com/resource_name": "dask-a"},
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ('resource.labels.instance_id="12"', True),
        ("resource.labels.instance_id=(11 OR 12)", True),
        ('jsonPayload.message:"hello"', True),
        ('jsonPayload.message="hello THERE"', True),
        ('jsonPayload.message=~"^Hello"', True),
        ('jsonPayload.message=~"^hello"', False),
        ("severity>=WARNING severity<ERROR", True),
        ("severity>=ERROR", False),
        ('timestamp>"2026-05-31T23:59:59Z" AND NOT timestamp>="2026-06-01T00:00:01Z"', True),
        ('labels."compute.googleapis.com/resource_name"=dask-a', True),
        ("labels.missing=x", False),
        ("labels.missing!=x", True),
        ("jsonPayload.instance:*", True),
        ("severity=ERROR OR severity=WARNING logName:nothing", False),  # OR binds closer
        ("(severity=ERROR AND logName:nothing) OR severity=WARNING", True),
        ('"hello"', True),
    ],
)
def test_filters_match(text, matches):
    """Filters are what the query language says they are."""
    assert matches is gcp_filters.parsed(text)(ENTRY)


@pytest.mark.parametrize("text", ["a=", "(a=b", "a=b)", "AND a=b", "-a=b", "a=b OR"])
def test_unknown_filters_are_refused(text):
    """What is no filter is refused."""
    with pytest.raises(gcp_filters.FilterError):
        gcp_filters.parsed(text)


# -- logs ----------------------------------------------------------------------------------------------


def test_entries_are_listed(cloud, person):
    """Lines of a container are found by its machine, in either order, in pages."""
    cloud.services.logging.of_container(
        id="12", name="dask-a-w-1", zone="us-central1-a", container="dask", lines=["one", "two", "three"]
    )
    cloud.services.logging.of_container(
        id="13", name="b", zone="us-central1-a", container="dask", lines=["no"]
    )
    asked = {
        "resourceNames": [f"projects/{PROJECT}"],
        "filter": 'resource.type="gce_instance" AND resource.labels.instance_id="12"',
        "orderBy": "timestamp desc",
        "pageSize": 2,
    }

    first = person("POST", "/v2/entries:list", asked)
    second = person("POST", "/v2/entries:list", {**asked, "pageToken": first["nextPageToken"]})

    lines = [one["jsonPayload"]["message"] for one in [*first["entries"], *second["entries"]]]
    assert ["three", "two", "one"] == lines
    assert "dask-a-w-1" == first["entries"][0]["jsonPayload"]["instance"]["name"]


def test_entries_are_written_by_who_may(cloud, person):
    """The role of log writers lets a machine write entries and read none."""
    member, machine = person.account(cloud)
    entries = {
        "logName": f"projects/{PROJECT}/logs/x",
        "resource": {"type": "global"},
        "entries": [{"textPayload": "hello", "severity": "ERROR"}],
    }
    before = machine("POST", "/v2/entries:write", entries)
    person.bind({"role": "roles/logging.logWriter", "members": [member]})
    asked = {"resourceNames": [f"projects/{PROJECT}"]}

    assert "PERMISSION_DENIED" == before["error"]["status"]
    assert {} == machine("POST", "/v2/entries:write", entries)
    assert "PERMISSION_DENIED" == machine("POST", "/v2/entries:list", asked)["error"]["status"]
    assert ["hello"] == [one["textPayload"] for one in person("POST", "/v2/entries:list", asked)["entries"]]


def test_wrong_lists_are_refused(person):
    """A list without a resource, of an unknown order or by no filter is refused."""
    good = {"resourceNames": [f"projects/{PROJECT}"]}
    wrong = ({}, {**good, "orderBy": "severity"}, {**good, "filter": "(("}, {**good, "pageSize": -1})

    seen = [person("POST", "/v2/entries:list", body) for body in (good, *wrong)]

    assert [None, *["INVALID_ARGUMENT"] * 4] == [one.get("error", {}).get("status") for one in seen]


def test_retention_is_set(person):
    """The default bucket keeps entries as many days as it is told; the required one is not changed."""
    buckets = f"/v2/projects/{PROJECT}/locations/global/buckets"
    first = person("GET", f"{buckets}/_Default")
    changed = person("PATCH", f"{buckets}/_Default", {"retentionDays": 7}, updateMask="retentionDays")
    required = person("PATCH", f"{buckets}/_Required", {"retentionDays": 7}, updateMask="retentionDays")

    assert [30, 7] == [first["retentionDays"], changed["retentionDays"]]
    assert "INVALID_ARGUMENT" == required["error"]["status"]


# -- services ------------------------------------------------------------------------------------------


def test_disabled_service_says_so(person):
    """A call of a disabled API is refused with how to enable it; enabled, it answers again."""
    service = f"{P}/services/secretmanager.googleapis.com"
    person("POST", f"{service}:disable", {})
    state = person("GET", service)["state"]
    refused = person("GET", f"{P}/secrets")
    operation = person("POST", f"{service}:enable", {})

    assert "DISABLED" == state
    assert "SERVICE_DISABLED" == reason(refused)
    assert f"has not been used in project {NUMBER} before or it is disabled" in refused["error"]["message"]
    assert operation == person("GET", f"/v1/{operation['name']}")
    assert "error" not in person("GET", f"{P}/secrets")


def test_leftovers_are_told(cloud, person):
    """Secrets and bindings that speak of a cluster are left over; what is of the landing is not."""
    member, _ = person.account(cloud)
    person.secret("dask-a-machine", "x", labels={"dask-cluster": "a"})
    person.secret("landing", labels={"dask-landing": "yes"})
    condition = {"title": "dask-a", "description": "dask-cluster=a", "expression": "true"}
    person.bind({"role": "roles/compute.viewer", "members": [member], "condition": condition})

    assert ["secret: dask-a-machine", "binding: dask-a"] == cloud.services.leftovers()
