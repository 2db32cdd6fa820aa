"""The services beside the embedded Azure's compute: the directory, identities, roles and key vaults."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceResponseError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.msi import ManagedServiceIdentityClient
from services_front import AzureFront, served

from cloudprovider.emulator import azure_answers, azure_roles, azure_tls
from cloudprovider.emulator.azure_builtin_roles import BUILT_IN
from cloudprovider.emulator.azure_tokens import MANAGER, VAULTS
from cloudprovider.emulator.azure_wire import CLIENT, PERSON, SECRET, SUBSCRIPTION, TENANT, AzureError

ALL = f"/subscriptions/{SUBSCRIPTION}"
ONE, TWO = f"{ALL}/resourceGroups/one", f"{ALL}/resourceGroups/two"
OFFICER, READER = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "4633458b-17de-408a-b874-0445c86b69e6"
CONTRIBUTOR = "b24988ac-6180-42a0-ab88-20f7382dd24c"
DELETE = "Microsoft.Compute/virtualMachines/delete"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The authorities that callers trust."""
    return str(azure_tls.identity().bundle(tmp_path_factory.mktemp("authorities")))


@pytest.fixture
def cloud(bundle, monkeypatch):
    """The services, which callers of this process trust."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with served(AzureFront) as front:
        yield front


class Caller:
    """The SDK's clients with the credentials of one application."""

    def __init__(self, cloud, client=CLIENT, secret=SECRET, tenant=TENANT):
        where = {"authority": cloud.url, "disable_instance_discovery": True}
        self.credential = ClientSecretCredential(tenant, client, secret, **where)
        how = {"base_url": cloud.url, "credential_scopes": [f"{cloud.url}/.default"], "retry_total": 0}
        self.msi = ManagedServiceIdentityClient(self.credential, SUBSCRIPTION, **how)
        self.keyvault = KeyVaultManagementClient(self.credential, SUBSCRIPTION, **how)
        self.authorization = AuthorizationManagementClient(self.credential, SUBSCRIPTION, **how)

    def identity(self, name="dask-machine", group="one"):
        """A new managed identity."""
        body = {"location": "westeurope", "tags": {"dask-landing": "yes"}}
        return self.msi.user_assigned_identities.create_or_update(group, name, body)

    def vault(self, name="dask-one", group="one", **properties):
        """A new vault."""
        settings = {
            "tenantId": TENANT,
            "sku": {"family": "A", "name": "standard"},
            "enableRbacAuthorization": True,
            "softDeleteRetentionInDays": 7,
            **properties,
        }
        body = {"location": "westeurope", "properties": settings}
        return self.keyvault.vaults.begin_create_or_update(group, name, body).result()

    def give(self, role, who, scope, name="", **more):
        """Assign a role."""
        role = f"{ALL}/providers/{azure_roles.DEFINITIONS}/{role}"
        given = {"roleDefinitionId": role, "principalId": who, **more}
        name = name or str(uuid.uuid4())
        return self.authorization.role_assignments.create(scope, name, {"properties": given})

    def secrets(self, vault):
        """The client of a vault's secrets."""
        return SecretClient(vault.properties.vault_uri, self.credential, retry_total=0)


@pytest.fixture
def person(cloud):
    return Caller(cloud)


@pytest.fixture
def vault(person):
    """A vault whose secrets the person may set and read."""
    made = person.vault()
    person.give(OFFICER, PERSON, made.id)
    return made


def refused(status, code, act, *values, **more):
    """What an act is refused with, after its status and code are as expected."""
    with pytest.raises(HttpResponseError) as error:
        act(*values, **more)

    assert [status, code] == [error.value.status_code, error.value.error.code]
    return error.value.message


def asked(url, bundle, token="", method="GET", data=None):
    """Status, headers and document of an answer, by the standard library alone."""
    import ssl

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers, method=method, data=data)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=bundle)) as answer:
            return answer.status, answer.headers, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read() or b"null")


# -- who it is -----------------------------------------------------------------------------------------


def test_token_says_who_and_what_for(cloud, person):
    """An application's token names its audience, its application and its object in the directory."""
    token = person.credential.get_token(f"{cloud.url}/.default").token

    who = cloud.services.who(token)

    assert [PERSON, CLIENT, cloud.url] == [who.object_id, who.client_id, who.audience]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret": "no"}, "AADSTS7000215"),
        ({"client": "5b0f8a9e-0000-0000-0000-000000000000"}, "AADSTS700016"),
        ({"tenant": "5b0f8a9e-0000-0000-0000-000000000000"}, "(?i)authority|AADSTS90002"),
    ],
)
def test_wrong_sign_in_is_refused(cloud, wrong, said):
    """A wrong secret, application or directory is refused in the directory's words."""
    with pytest.raises((ClientAuthenticationError, ValueError), match=said):
        Caller(cloud, **wrong).credential.get_token(f"{cloud.url}/.default")


def test_tokens_are_for_one_audience(cloud, person):
    """A vault's token is not Resource Manager's, and a token is over after its time."""
    of_vault = person.credential.get_token(f"{VAULTS}/.default").token
    token = person.credential.get_token(f"{MANAGER[0]}/.default").token
    seen = [cloud.services.who(of_vault), cloud.services.who(token)]
    cloud.inject("clock-skew", seconds=4000)

    assert [None, PERSON] == [one and one.object_id for one in seen]
    assert cloud.services.who(token) is None


def test_nobodys_token_is_refused(cloud, person):
    """A token that the directory did not sign is nobody's."""
    head, claims, signature = person.credential.get_token(f"{cloud.url}/.default").token.split(".")

    assert cloud.services.who(f"{head}.{claims}.{signature[:-8]}AAAAAAAA") is None
    assert cloud.services.who("no token") is None


def test_machine_acts_by_its_identity(cloud, person):
    """A machine's token is of the identity that it has, or of the one that it names among several."""
    one, two = person.identity("one"), person.identity("two")
    answer = cloud.services.machine_token([one.id], MANAGER[0])
    named = cloud.services.machine_token([one.id, two.id], VAULTS, client_id=two.client_id)

    assert one.principal_id == cloud.services.who(answer["access_token"]).object_id
    assert one.id == cloud.services.who(answer["access_token"]).resource_id
    assert two.client_id == named["client_id"]
    for identities, client in (([], ""), ([one.id], two.client_id), ([one.id, two.id], "")):
        with pytest.raises(AzureError, match=r"Identity not found|Multiple user assigned"):
            cloud.services.machine_token(identities, MANAGER[0], client_id=client)


# -- managed identities --------------------------------------------------------------------------------


def test_identity_is_kept(cloud, person):
    """An identity made again is the same; deleted it is not found, and its tokens are nobody's."""
    made, again = person.identity(), person.identity()
    token = cloud.services.machine_token([made.id], MANAGER[0])["access_token"]
    listed = [one.name for one in person.msi.user_assigned_identities.list_by_resource_group("one")]

    person.msi.user_assigned_identities.delete("one", "dask-machine")

    assert made.principal_id == again.principal_id
    assert ["dask-machine"] == listed
    assert cloud.services.who(token) is None
    refused(404, "ResourceNotFound", person.msi.user_assigned_identities.get, "one", "dask-machine")


def test_missing_group_is_named(person):
    """In a resource group that there is not, nothing is made."""
    said = refused(404, "ResourceGroupNotFound", person.identity, group="three")

    assert "'three'" in said


@pytest.mark.parametrize(
    "body", [{}, {"location": "westeurope", "tagz": {}}, {"location": "westeurope", "tags": {"a": 1}}]
)
def test_wrong_bodies_are_refused(cloud, person, bundle, body):
    """What the SDK's own models do not know is refused."""
    token = person.credential.get_token(f"{cloud.url}/.default").token
    path = f"{ONE}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one?api-version=2024-11-30"
    status, _, document = asked(cloud.url + path, bundle, token, "PUT", json.dumps(body).encode())

    assert 400 == status
    assert document["error"]["code"] in ("InvalidRequestContent", "InvalidParameter")


@pytest.mark.parametrize("version", ["", "2099-01-01", "soon"])
def test_unknown_versions_are_refused(cloud, person, bundle, version):
    """An api-version that there is not is refused, and so is none."""
    token = person.credential.get_token(f"{cloud.url}/.default").token
    query = f"?api-version={version}" if version else ""
    path = f"{ONE}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"
    status, _, document = asked(cloud.url + path + query, bundle, token)

    assert 400 == status
    assert "ApiVersionParameter" in document["error"]["code"]


def test_answers_are_held_to_the_models():
    """An answer that the SDK's models do not know is found."""
    wrong = {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "location": "x", "principal": "y"}

    with pytest.raises(AzureError, match="principal"):
        azure_answers.check(wrong)


# -- roles ---------------------------------------------------------------------------------------------


def test_role_is_given_on_a_scope(cloud, person):
    """An identity may do what its role allows within the scope of the assignment, and nothing outside of it."""
    who = cloud.services.identity(person.identity().id)
    machine = "/providers/Microsoft.Compute/virtualMachines/vm"
    before = cloud.services.may(who, DELETE, ONE + machine)
    person.give(CONTRIBUTOR, who.object_id, ONE, principalType="ServicePrincipal")

    assert f"does not have authorization to perform action '{DELETE}' over scope '{ONE}{machine}'" in before
    assert "" == cloud.services.may(who, DELETE, ONE + machine)
    assert cloud.services.may(who, DELETE, TWO + machine)
    assert cloud.services.may(who, "Microsoft.Authorization/roleAssignments/write", ONE)
    assert cloud.services.may(who, DELETE, f"{ONE}-more{machine}")


def test_who_may_not_give_roles_is_told(cloud):
    """A caller without a role is refused with the action and the scope."""
    cloud.services.directory.register("5b0f8a9e-0000-0000-0000-000000000001", "x")
    other = Caller(cloud, "5b0f8a9e-0000-0000-0000-000000000001", "x")

    said = refused(403, "AuthorizationFailed", other.give, CONTRIBUTOR, PERSON, ONE)

    assert "Microsoft.Authorization/roleAssignments/write" in said
    assert f"over scope '{ONE}'" in said


def test_same_assignment_exists(person):
    """A role given twice to one principal on one scope exists; the same name with the same facts changes nothing."""
    who, name = person.identity().principal_id, str(uuid.uuid4())
    first = person.give(CONTRIBUTOR, who, ONE, name)
    again = person.give(CONTRIBUTOR, who, ONE, name)

    refused(409, "RoleAssignmentExists", person.give, CONTRIBUTOR, who, ONE)
    refused(400, "RoleAssignmentUpdateNotPermitted", person.give, READER, who, ONE, name)
    assert first.id == again.id


def test_new_principal_is_known_after_a_while(cloud, person):
    """While identities propagate, a new one is given a role only by who says what it is, and may use it later."""
    fault = cloud.inject("role-propagation", seconds=3600)
    who = cloud.services.identity(person.identity().id)

    refused(400, "PrincipalNotFound", person.give, CONTRIBUTOR, who.object_id, ONE)
    person.give(CONTRIBUTOR, who.object_id, ONE, principalType="ServicePrincipal")
    early = cloud.services.may(who, DELETE, ONE)
    cloud.account.faults.clear(fault.id)

    assert early
    assert "" == cloud.services.may(who, DELETE, ONE)
    refused(400, "PrincipalNotFound", person.give, CONTRIBUTOR, str(uuid.uuid4()), ONE)
    refused(400, "UnmatchedPrincipalType", person.give, READER, who.object_id, ONE, principalType="User")


def test_custom_role_is_made_and_given(cloud, person):
    """A role of one's own gives its actions where it may be assigned, and is kept while somebody has it."""
    who = cloud.services.identity(person.identity().id)
    name = str(uuid.uuid4())
    body = {
        "roleName": "Dask machine",
        "description": "Ends itself",
        "type": "CustomRole",
        "permissions": [
            {"actions": ["Microsoft.Compute/virtualMachines/*"], "notActions": ["*/start/action"]}
        ],
        "assignableScopes": [ONE],
    }
    definitions = person.authorization.role_definitions
    definitions.create_or_update(ONE, name, {"properties": body})
    given = person.give(name, who.object_id, ONE)

    assert "" == cloud.services.may(who, DELETE, ONE)
    assert cloud.services.may(who, "Microsoft.Compute/virtualMachines/start/action", ONE)
    refused(400, "RoleAssignmentScopeNotAssignableToRoleDefinition", person.give, name, who.object_id, TWO)
    another = {"properties": body}
    refused(
        409, "RoleDefinitionWithSameNameExists", definitions.create_or_update, ONE, str(uuid.uuid4()), another
    )
    refused(400, "RoleDefinitionHasAssignments", definitions.delete, ONE, name)
    person.authorization.role_assignments.delete_by_id(given.id)
    definitions.delete(ONE, name)
    assert [] == list(definitions.list(ONE, filter="roleName eq 'Dask machine'"))


def test_built_in_roles_are_found_by_name(person):
    """Azure's own roles have the ids they have everywhere."""
    found = list(
        person.authorization.role_definitions.list(ALL, filter="roleName eq 'Key Vault Secrets User'")
    )

    assert [READER] == [one.name for one in found]
    assert "BuiltInRole" == found[0].role_type
    assert {OFFICER, READER, CONTRIBUTOR} <= set(BUILT_IN)


def test_assignments_are_listed(person):
    """Assignments are listed by scope and by principal."""
    who = person.identity().principal_id
    person.give(CONTRIBUTOR, who, ONE)
    listed = person.authorization.role_assignments.list_for_scope

    assert [who] == [one.principal_id for one in listed(ONE, filter=f"principalId eq '{who}'")]
    assert {who, PERSON} == {one.principal_id for one in listed(ONE)}
    assert [PERSON] == [one.principal_id for one in listed(TWO)]


# -- vaults --------------------------------------------------------------------------------------------


def test_secret_is_set_and_read(person, vault):
    """A secret's newest version is what is read; it is listed without its value."""
    secrets = person.secrets(vault)
    secrets.set_secret("one", "first")
    secrets.set_secret("one", "second", tags={"dask-cluster": "a"}, content_type="text/plain")

    assert "second" == secrets.get_secret("one").value
    listed = list(secrets.list_properties_of_secrets())
    assert [("one", {"dask-cluster": "a"})] == [(one.name, one.tags) for one in listed]
    versions = list(secrets.list_properties_of_secret_versions("one"))
    assert {"first", "second"} == {secrets.get_secret("one", one.version).value for one in versions}


def test_pages_of_secrets_are_followed(person, vault):
    """More secrets than fit on a page are all listed."""
    secrets = person.secrets(vault)
    names = {f"secret-{number}" for number in range(30)}
    for name in names:
        secrets.set_secret(name, "x")

    assert names == {one.name for one in secrets.list_properties_of_secrets()}


def test_vault_says_whose_tokens_it_takes(cloud, vault, bundle):
    """A call without a token is answered with the authority and a resource that is the host's parent."""
    status, headers, document = asked(f"{vault.properties.vault_uri}secrets/one?api-version=7.4", bundle)

    port = vault.properties.vault_uri.rpartition(":")[2].strip("/")
    said = f'Bearer authorization="{cloud.url}/{TENANT}", resource="https://0.0.1:{port}"'
    assert [401, "Unauthorized"] == [status, document["error"]["code"]]
    assert said == headers["WWW-Authenticate"]


def test_machine_reads_its_vault_alone(cloud, person, vault, bundle):
    """An identity with the role of readers on one vault reads its secrets, sets none, and reads no other vault's."""
    other = person.vault("dask-two")
    person.give(OFFICER, PERSON, other.id)
    for one in (vault, other):
        person.secrets(one).set_secret("one", "value")
    identity = person.identity()
    person.give(READER, identity.principal_id, vault.id)
    token = cloud.services.machine_token([identity.id], VAULTS)["access_token"]

    def read(where, **more):
        return asked(f"{where.properties.vault_uri}secrets/one?api-version=7.4", bundle, token, **more)

    assert (200, "value") == (read(vault)[0], read(vault)[2]["value"])
    status, _, refusal = read(other)
    assert [403, "ForbiddenByRbac"] == [status, refusal["error"]["innererror"]["code"]]
    assert "Microsoft.KeyVault/vaults/secrets/getSecret/action" in refusal["error"]["message"]
    assert 403 == read(vault, method="PUT", data=b'{"value": "x"}')[0]


def test_managers_token_opens_no_vault(cloud, person, vault, bundle):
    """A token of Resource Manager's is not a vault's, and an owner without a data role reads nothing."""
    token = person.credential.get_token(f"{cloud.url}/.default").token
    plain = person.vault("dask-two")

    assert 401 == asked(f"{vault.properties.vault_uri}secrets?api-version=7.4", bundle, token)[0]
    said = refused(403, "Forbidden", person.secrets(plain).get_secret, "one")
    assert "Caller is not authorized to perform action on resource" in said


def test_deleted_secret_is_kept_for_a_while(person, vault):
    """A deleted secret's name is taken until it is purged or recovered."""
    secrets = person.secrets(vault)
    secrets.set_secret("one", "value")
    secrets.begin_delete_secret("one").wait()
    refused(404, "SecretNotFound", secrets.get_secret, "one")
    refused(409, "Conflict", secrets.set_secret, "one", "again")
    secrets.begin_recover_deleted_secret("one").wait()
    recovered = secrets.get_secret("one").value
    secrets.begin_delete_secret("one").wait()
    secrets.purge_deleted_secret("one")
    secrets.set_secret("one", "new")

    assert ["value", "new"] == [recovered, secrets.get_secret("one").value]
    assert [] == list(secrets.list_deleted_secrets())


def test_secret_is_told_after_its_end(cloud, person, vault):
    """A secret's `exp` is for its readers to respect: the vault tells it nevertheless, as Azure's does."""
    import datetime as dt

    secrets = person.secrets(vault)
    end = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    secrets.set_secret("one", "value", expires_on=end)
    secrets.set_secret("two", "value", enabled=False)

    assert ["value", end] == [
        secrets.get_secret("one").value,
        secrets.get_secret("one").properties.expires_on,
    ]
    refused(403, "Forbidden", secrets.get_secret, "two")


def test_deleted_vault_is_kept_for_a_while(person, vault):
    """A deleted vault's name is taken, its host is gone; recovered it has its secrets, purged its name is free."""
    person.secrets(vault).set_secret("one", "value")
    person.keyvault.vaults.delete("one", "dask-one")
    deleted = [one.name for one in person.keyvault.vaults.list_deleted()]
    refused(404, "ResourceNotFound", person.keyvault.vaults.get, "one", "dask-one")
    refused(409, "ConflictError", person.vault)
    with pytest.raises(ServiceResponseError):
        person.secrets(vault).get_secret("one")
    back = person.vault(createMode="recover")
    refused(403, "Forbidden", person.secrets(back).get_secret, "one")  # roles do not come back with it
    person.give(OFFICER, PERSON, back.id)
    value = person.secrets(back).get_secret("one").value
    person.keyvault.vaults.delete("one", "dask-one")
    person.keyvault.vaults.begin_purge_deleted("dask-one", "westeurope").wait()

    assert ["dask-one"] == deleted
    assert "value" == value
    refused(
        403, "Forbidden", person.secrets(person.vault()).get_secret, "two"
    )  # another vault, and no role on it


def test_protected_vault_is_not_purged(person):
    """With purge protection, neither the vault nor a secret in it is purged before its time."""
    made = person.vault(enablePurgeProtection=True)
    person.give(OFFICER, PERSON, made.id)
    secrets = person.secrets(made)
    secrets.set_secret("one", "value")
    secrets.begin_delete_secret("one").wait()

    refused(403, "Forbidden", secrets.purge_deleted_secret, "one")
    person.keyvault.vaults.delete("one", "dask-one")
    refused(405, "MethodNotAllowed", person.keyvault.vaults.begin_purge_deleted, "dask-one", "westeurope")


@pytest.mark.parametrize(
    ("name", "code"),
    [("vault", "VaultAlreadyExists"), ("1st", "VaultNameNotValid"), ("a--b", "VaultNameNotValid")],
)
def test_vault_names_are_one_space(person, name, code):
    """A name that somebody else has, or that is none, is refused; the check of names says so before."""
    kind = "Microsoft.KeyVault/vaults"
    checked = person.keyvault.vaults.check_name_availability({"name": name, "type": kind})
    free = person.keyvault.vaults.check_name_availability({"name": "dask-free", "type": kind})

    assert [False, True] == [checked.name_available, free.name_available]
    refused(409 if "Exists" in code else 400, code, person.vault, name)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"softDeleteRetentionInDays": 3}, "BadRequest"),
        ({"tenantId": "5b0f8a9e-0000-0000-0000-000000000000"}, "BadRequest"),
        ({"enableSoftDelete": False}, "BadRequest"),
        ({"enableRbacAuthorization": False}, "NotImplemented"),
        ({"skuu": {}}, "InvalidRequestContent"),
    ],
)
def test_wrong_settings_are_refused(person, settings, code):
    """A vault's settings are held to the models and to what Azure allows."""
    status = 501 if code == "NotImplemented" else 400

    refused(status, code, person.vault, **settings)


def test_faults_reach_vaults(cloud, person, vault):
    """A vault throttles, fails, forgets to answer and denies as it is made to; every call is remembered."""
    secrets = person.secrets(vault)
    secrets.set_secret("one", "value")
    cloud.inject("throttle", operation="GetSecret", times=1)
    refused(429, "Throttled", secrets.get_secret, "one")
    cloud.inject("denied", operation="keyvault:GetSecret", times=1)
    refused(403, "Forbidden", secrets.get_secret, "one")
    cloud.inject("error-after-effect", operation="SetSecret", times=1)
    refused(500, "InternalServerError", secrets.set_secret, "two", "value")

    assert "value" == secrets.get_secret("two").value
    seen = [(call.operation, call.error) for call in cloud.services.calls if call.error != "Unauthorized"]
    assert [
        ("SetSecret", ""),
        ("GetSecret", "Throttled"),
        ("GetSecret", "Forbidden"),
        ("SetSecret", "InternalServerError"),
        ("GetSecret", ""),
    ] == seen


def test_group_takes_all_with_it(cloud, person, vault):
    """With a resource group go its identities, its vaults and the roles on them."""
    who = person.identity()
    person.give(CONTRIBUTOR, who.principal_id, ONE)

    cloud.services.forget_group(ONE)

    assert [] == cloud.services.resources()
    assert [PERSON] == [one.principal_id for one in person.authorization.role_assignments.list_for_scope(ONE)]


def test_leftovers_are_told(cloud, person, vault):
    """A vault and its secrets are left over unless they are of a landing, whose identities are not."""
    person.identity()
    person.secrets(vault).set_secret("dask-a-machine", "value")

    assert ["Microsoft.KeyVault/vaults: dask-one", "secret: dask-a-machine"] == cloud.services.leftovers()
